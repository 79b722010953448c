//! `completions`, `man`.

use clap::CommandFactory as _;

use super::{
    args::{Cli, CompletionsArgs, ManArgs},
    exit::{Error, Exit},
    out::Out,
};

pub(super) fn completions(args: CompletionsArgs, out: &mut Out) -> Result<Exit, Error> {
    // Into memory first: clap_complete panics when it cannot write, as with `| head`.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sip-filter", &mut script);
    out.text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

pub(super) fn man(args: &ManArgs, out: &mut Out) -> Result<Exit, Error> {
    let Some(directory) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command())
            .render(&mut page)
            .map_err(Error::Output)?;
        out.text(&String::from_utf8_lossy(&page))?;
        return Ok(Exit::Done);
    };
    let failed = |action| {
        move |source| Error::File {
            action,
            path: directory.display().to_string(),
            source,
        }
    };
    std::fs::create_dir_all(directory).map_err(failed("create the directory"))?;
    clap_mangen::generate_to(Cli::command(), directory).map_err(failed("write the pages to"))?;
    out.note(format_args!("wrote the manual pages to {}", directory.display()));
    Ok(Exit::Done)
}
