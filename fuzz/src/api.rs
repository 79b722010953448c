//! Bodies of requests to the API, and of its answers: what the daemon reads from clients, and clients from it.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};
use sip_filter::api::types::{
    Access, AllowAdd, AllowList, AllowRemove, BanFilter, BanList, BanRequest, BanResult, Check, ConfigText,
    DroppedPacket, Event, Health, ImportReport, ImportRequest, ModeChange, ModeRequest, ReloadReport, Status,
    Targeted, Top, TopQuery, Unban,
};

/// Reads a body as each of the types.
pub fn api(body: &[u8]) {
    // Requests.
    kept::<BanRequest>(body);
    kept::<Unban>(body);
    kept::<AllowAdd>(body);
    kept::<AllowRemove>(body);
    kept::<ModeRequest>(body);
    kept::<ImportRequest>(body);
    kept::<BanFilter>(body);
    kept::<TopQuery>(body);
    // Answers.
    kept::<BanList>(body);
    kept::<Targeted<BanResult>>(body);
    kept::<Check>(body);
    kept::<AllowList>(body);
    kept::<Status>(body);
    kept::<Event>(body);
    kept::<Health>(body);
    kept::<ModeChange>(body);
    kept::<ConfigText>(body);
    kept::<ReloadReport>(body);
    kept::<ImportReport>(body);
    let _ = twice::<Top>(body);
    kept::<Access>(body);
    kept::<DroppedPacket>(body);
}

/// What can be read can be written, is read back, and then says the same; an error is not much longer than the body.
fn kept<T: DeserializeOwned + Serialize + Debug>(body: &[u8]) {
    if let Some((written, rewritten)) = twice::<T>(body) {
        let text = [&written, &rewritten].map(|bytes| bytes.escape_ascii().to_string());
        assert!(written == rewritten, "{text:?}");
    }
}

/// A value as it is written, and what is written when that was read. The last digit of a fraction may differ.
fn twice<T: DeserializeOwned + Serialize + Debug>(body: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let value: T = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(error) => {
            // A few bytes of an escape can stand for one byte of the body.
            let text = error.to_string();
            assert!(!text.is_empty() && text.len() < 1_000 + 12 * body.len(), "{text}");
            return None;
        }
    };
    let written =
        serde_json::to_vec(&value).unwrap_or_else(|error| panic!("{value:?} cannot be written: {error}"));
    assert!(
        written.len() < 2_000 + 12 * body.len(),
        "{} bytes out of {}",
        written.len(),
        body.len()
    );
    let again: T = serde_json::from_slice(&written)
        .unwrap_or_else(|error| panic!("{}: {error}", written.escape_ascii()));
    Some((
        written,
        serde_json::to_vec(&again).expect("written once, so it can be written"),
    ))
}
