//! Times of messages: the literal is kept, and the instant is what it says.

use std::time::{Duration, SystemTime};

use countersign_protocol::{Offset, Timestamp};

/// See the file's head.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(offset) = text.parse::<Offset>() {
        assert_eq!(offset.to_string().parse(), Ok(offset));
    }
    let Ok(time) = Timestamp::parse(text) else {
        return;
    };
    assert_eq!(time.as_str(), text);
    assert_eq!(time.skew(time.instant()), Duration::ZERO);
    let offset: Offset = "+05:30".parse().expect("an offset");
    for written in [
        Timestamp::at(time.instant(), Offset::default()),
        Timestamp::at(time.instant(), offset),
    ] {
        let read = Timestamp::parse(written.as_str()).expect("our own times are read");
        assert_eq!(read.instant(), written.instant());
        // Whole seconds are written; at the ends of the calendar two offsets may cut off days.
        let days = Duration::from_secs(2 * 24 * 3600);
        let most = if is_far(time.instant()) {
            days
        } else {
            Duration::from_secs(1)
        };
        assert!(written.skew(time.instant()) < most, "{text} {written}");
    }
}

fn is_far(instant: SystemTime) -> bool {
    let distance = Timestamp::at(instant, Offset::default()).skew(SystemTime::UNIX_EPOCH);
    distance > Duration::from_secs(60_000_000_000)
}
