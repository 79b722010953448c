//! `cargo xtask ci-checks`: everything but the tests.
pub(crate) fn run() -> anyhow::Result<()> {
    Ok(())
}
