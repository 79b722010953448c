//! The dashboard at work: keys from the terminal, answers from the daemon, the screen.

use std::{
    io,
    net::IpAddr,
    thread,
    time::{Duration, SystemTime},
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, timeout},
};

use super::{
    keys,
    model::{Action, Change, Dialog, Look, Model, Terminal},
    traffic::SECONDS,
    view,
};
use crate::{
    api::{
        ErrorKind,
        client::{Client, ClientError},
        types::{AllowAdd, BanOutcome, BanRequest, Mode, TopQuery, Unban},
    },
    bans::Scope,
    cli::{
        bans::check_text,
        exit::{Error, Exit},
        out::Out,
    },
};

/// Sources and bans to ask for: more than any screen has lines, so that a filter finds some.
const SOURCES: usize = 200;

/// An answer that takes longer counts as lost; the next look follows.
const PATIENCE: Duration = Duration::from_secs(5);

/// What arrives from elsewhere.
enum News {
    Look(Result<Box<Look>, String>),
    ReadOnly(String),
    Done(String),
    Failed(String),
    Text(String, Vec<String>),
}

/// Runs until the user quits, the terminal goes away, or a signal asks for it.
pub(super) async fn run(client: &Client, interval: Duration, out: &Out) -> Result<Exit, Error> {
    // A daemon that is not there at the start is an error as for every verb. Later, it is waited for.
    let first = look(client).await?;
    let mut model = Model::new(Terminal {
        colour: out.colours(),
        unicode: unicode(),
    });
    model.looked(Ok(Box::new(first)));
    let signals = Signals::new().map_err(Error::Output)?;
    // Also has a panic restore the terminal before it is reported.
    let mut terminal = ratatui::try_init().map_err(Error::Output)?;
    let ended = watch(client, interval, &mut model, &mut terminal, signals).await;
    ratatui::restore();
    ended.map_err(Error::Output)?;
    Ok(Exit::Done)
}

/// Whether the locale has more than ASCII.
fn unicode() -> bool {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG"));
    locale.is_some_and(|locale| {
        let locale = locale.to_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// Signals that end the dashboard, in order.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn any(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

async fn watch(
    client: &Client,
    interval: Duration,
    model: &mut Model,
    terminal: &mut DefaultTerminal,
    mut signals: Signals,
) -> io::Result<()> {
    let mut events = terminal_events();
    let (tell, mut news) = mpsc::unbounded_channel();
    spawn_access(client, &tell);
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looking = false;
    loop {
        terminal.draw(|frame| view::draw(frame, model, SystemTime::now()))?;
        tokio::select! {
            () = signals.any() => return Ok(()),
            event = events.recv() => match event {
                // The terminal is gone.
                None => return Ok(()),
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    match keys::press(model, key) {
                        Some(Action::Quit) => return Ok(()),
                        Some(action) => spawn_action(client, action, &tell),
                        None => {}
                    }
                }
                // A new size, perhaps: it is drawn again.
                Some(_) => {}
            },
            _ = ticks.tick(), if !looking => {
                looking = true;
                spawn_look(client, &tell);
            }
            Some(news) = news.recv() => {
                if matches!(news, News::Look(_)) {
                    looking = false;
                }
                hear(model, news);
            }
        }
    }
}

fn hear(model: &mut Model, news: News) {
    match news {
        News::Look(look) => model.looked(look),
        News::ReadOnly(why) => model.read_only = Some(why),
        News::Done(what) => model.say(what),
        News::Failed(why) => model.complain(why),
        // Not over something the user has opened meanwhile.
        News::Text(title, lines) if model.dialog.is_none() => {
            model.dialog = Some(Dialog::Text {
                title,
                lines,
                from: 0,
            });
        }
        News::Text(..) => {}
    }
}

/// Keys and sizes, from a thread of their own: reading a terminal blocks. The thread ends with the process.
fn terminal_events() -> mpsc::UnboundedReceiver<Event> {
    let (tell, events) = mpsc::unbounded_channel();
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if tell.send(event).is_err() {
                return;
            }
        }
    });
    events
}

type Tell = mpsc::UnboundedSender<News>;

async fn look(client: &Client) -> Result<Look, ClientError> {
    let query = TopQuery {
        limit: SOURCES,
        seconds: SECONDS,
    };
    let (status, health, top) = tokio::try_join!(client.status(), client.health(), client.top(query))?;
    Ok(Look { status, health, top })
}

fn spawn_look(client: &Client, tell: &Tell) {
    let (client, tell) = (client.clone(), tell.clone());
    tokio::spawn(async move {
        let look = match timeout(PATIENCE, look(&client)).await {
            Ok(look) => look.map(Box::new).map_err(|error| sentence(&error)),
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        // The dashboard has ended: nobody listens.
        let _ = tell.send(News::Look(look));
    });
}

/// Finds out whether this user may change anything, before a key is tried.
fn spawn_access(client: &Client, tell: &Tell) {
    let (client, tell) = (client.clone(), tell.clone());
    tokio::spawn(async move {
        if let Err(ClientError::Api(error)) = client.access().await
            && error.kind == ErrorKind::Denied
        {
            let _ = tell.send(News::ReadOnly(error.message));
        }
    });
}

fn spawn_action(client: &Client, action: Action, tell: &Tell) {
    let (client, tell) = (client.clone(), tell.clone());
    tokio::spawn(async move {
        let result = match action {
            Action::Quit => return,
            Action::Change(change) => carry_out(&client, change).await.map(News::Done),
            Action::Check(address) => check(&client, address).await,
        };
        let _ = tell.send(result.unwrap_or_else(|error| News::Failed(sentence(&error))));
    });
}

async fn carry_out(client: &Client, change: Change) -> Result<String, ClientError> {
    match change {
        Change::Ban(target, lifetime) => {
            let request = BanRequest {
                targets: vec![target],
                lifetime: Some(lifetime),
                reason: "by hand in top".to_owned(),
                scope: Scope::Sip,
                force: false,
            };
            let answer = client.ban(&request).await?;
            let unchanged = answer
                .results
                .iter()
                .any(|result| result.outcome == BanOutcome::Unchanged);
            Ok(match answer.mode {
                _ if unchanged => format!("{target} was already banned so"),
                Mode::Enforce => format!("banned {target} {lifetime}"),
                Mode::Simulate => format!("banned {target} {lifetime}; simulating, so nothing is dropped"),
            })
        }
        Change::Unban(target) => {
            let answer = client.unban(&Unban::Targets(vec![target])).await?;
            let wider = answer.results.iter().find_map(|result| result.still_banned_by);
            Ok(match wider {
                Some(wider) => format!("unbanned {target}, which still lies in the ban of {wider}"),
                None => format!("unbanned {target}"),
            })
        }
        Change::Allow(target) => {
            let request = AllowAdd {
                targets: vec![target],
                comment: "by hand in top".to_owned(),
            };
            client.allow(&request).await?;
            Ok(format!(
                "allow-listed {target}; `sip-filter allow remove {target}` undoes it"
            ))
        }
    }
}

async fn check(client: &Client, address: IpAddr) -> Result<News, ClientError> {
    let answer = client.check(address).await?;
    let text = check_text(&answer, SystemTime::now());
    let lines = text.lines().map(str::to_owned).collect();
    Ok(News::Text(format!("check {address}"), lines))
}

/// An error with its causes and what to do about it, on one line.
fn sentence(error: &ClientError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    // A lost daemon is retried: how to start it would push the reason out of the line.
    if let (ClientError::Api(_), Some(hint)) = (error, error.hint()) {
        text.push_str(&format!(" ({hint})"));
    }
    text
}
