//! Whether everything works.

use crate::{
    api::types::{Health, HealthCheck, SchemaVersion},
    conditions::{Condition, Kind},
    daemon::{ControlHandle, Controller},
    dataplane,
};

/// Checks that are always named, and the conditions that tell of them. The others appear when they fail.
const NAMED: [Kind; 2] = [Kind::StoreFailing, Kind::ConfigRejected];

pub(super) fn health(handle: &ControlHandle) -> Health {
    let mut checks = handle.with(|controller, clock| {
        controller.judge(clock);
        of_controller(controller)
    });
    checks.extend(leftovers(handle));
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
    let conditions = handle.conditions().current();
    let faults = conditions.iter().filter(|condition| condition.name.is_fault());
    let others = faults.filter(|condition| !NAMED.contains(&condition.name));
    checks.extend(others.map(|condition| HealthCheck {
        name: name(condition),
        ok: false,
        message: format!("{}; {}", condition.text, condition.remedy),
    }));
    Health {
        schema_version: SchemaVersion,
        healthy: checks.iter().all(|check| check.ok),
        checks,
        conditions,
    }
}

/// Pins that nobody looks after: their filter goes on with the bans it had.
fn leftovers(handle: &ControlHandle) -> Option<HealthCheck> {
    let (root, names) = handle.with(|controller, _| {
        let names = controller.planes().iter().map(|plane| plane.name().to_owned());
        (
            controller.config().bpf.pin_root.clone(),
            names.collect::<Vec<_>>(),
        )
    });
    let held: Vec<&str> = names.iter().map(String::as_str).collect();
    let found = dataplane::leftovers(&root, &held);
    let first = found.first()?;
    Some(HealthCheck {
        name: "leftovers".to_owned(),
        ok: false,
        message: format!(
            "an earlier run has left its filter on {}, with the bans it had; `sip-filter detach {first} --pin-root {}` \
             removes it",
            found.join(", "),
            root.display()
        ),
    })
}

fn name(condition: &Condition) -> String {
    match condition.subject.as_str() {
        "" => condition.name.name().to_owned(),
        subject => format!("{}-{subject}", condition.name.name()),
    }
}

fn of_controller(controller: &mut Controller) -> Vec<HealthCheck> {
    let (unsaved, agrees) = (controller.unsaved(), controller.agrees());
    let mut checks = vec![
        check("store", unsaved.is_none(), "changes are saved", || {
            let why = unsaved.unwrap_or_default();
            format!("changes cannot be saved: {why}; it is tried again every 5 s")
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
                    format!("the filter is not attached to {name}; it is tried again by itself, see the log")
                }
            },
        });
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
