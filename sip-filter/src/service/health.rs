//! Whether everything works.

use crate::{
    api::types::{Health, HealthCheck, SchemaVersion},
    daemon::{ControlHandle, Controller},
};

/// Tables fuller than this are reported.
const NEARLY_FULL_PERCENT: usize = 80;

pub(super) fn health(handle: &ControlHandle) -> Health {
    let mut checks = handle.with(|controller, _| of_controller(controller));
    let reloaded = handle.last_reload_succeeded();
    checks.push(check(
        "config",
        reloaded,
        "the configuration in force is that of the file",
        || {
            "the configuration file cannot be used, an older one is in force; see `sip-filter config check`"
                .to_owned()
        },
    ));
    Health {
        schema_version: SchemaVersion,
        healthy: checks.iter().all(|check| check.ok),
        checks,
    }
}

fn of_controller(controller: &mut Controller) -> Vec<HealthCheck> {
    let (saves, agrees) = (controller.saves(), controller.agrees());
    let mut checks = vec![
        check("store", saves, "changes are saved", || {
            "changes cannot be saved; see the log, and the free space of the state directory".to_owned()
        }),
        check(
            "tables",
            agrees,
            "the kernel tables agree with the ban list",
            || {
                "the kernel tables may differ from the ban list; restart the daemon to rebuild them"
                    .to_owned()
            },
        ),
    ];
    for plane in controller.planes_mut() {
        let name = plane.name().to_owned();
        let attached = plane.xdp_mode();
        checks.push(HealthCheck {
            name: format!("attached-{name}"),
            ok: attached.is_some(),
            message: match attached {
                Some(mode) => format!("the filter is attached to {name} ({mode:?} mode)").to_lowercase(),
                None => {
                    format!("the filter is not attached to {name}; restart the daemon to attach it again")
                }
            },
        });
        for table in plane.image().fill() {
            let limit = table.capacity.saturating_mul(NEARLY_FULL_PERCENT) / 100;
            if table.entries > limit {
                checks.push(HealthCheck {
                    name: format!("table-{}-{name}", table.name),
                    ok: false,
                    message: format!(
                        "table {} of {name} holds {} of {} entries; raise `{}`",
                        table.name, table.entries, table.capacity, table.setting
                    ),
                });
            }
        }
    }
    checks
}

fn check(name: &str, ok: bool, good: &str, bad: impl FnOnce() -> String) -> HealthCheck {
    let message = if ok { good.to_owned() } else { bad() };
    HealthCheck {
        name: name.to_owned(),
        ok,
        message,
    }
}
