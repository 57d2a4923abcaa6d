//! The shapes of `Request-Time` and `Response-Time`.

use std::time::{Duration, SystemTime};

use countersign_protocol::{
    Offset, OffsetError,
    TimeError::{self, Impossible, Shape},
    Timestamp,
};

/// 2026-11-22T10:44:53Z.
const SECOND: u64 = 1_795_344_293;

fn instant(seconds: u64, nanoseconds: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds)
}

fn before(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH - Duration::from_secs(seconds)
}

#[test]
fn reads_every_documented_shape_as_its_instant() {
    let rows = [
        ("2026-11-22T10:44:53Z", instant(SECOND, 0)),
        ("2026-11-22T18:44:53+08:00", instant(SECOND, 0)),
        ("2026-11-22T18:44:53+0800", instant(SECOND, 0)),
        ("2026-11-22T05:14:53-05:30", instant(SECOND, 0)),
        ("2026-11-22T10:44:53+00:00", instant(SECOND, 0)),
        ("2026-11-22T10:44:53-00:00", instant(SECOND, 0)),
        ("2026-11-23T10:43:53+23:59", instant(SECOND, 0)),
        ("2026-11-22T10:44:53.1Z", instant(SECOND, 100_000_000)),
        ("2026-11-22T10:44:53.09Z", instant(SECOND, 90_000_000)),
        (
            "2026-11-22T10:44:53.123456789Z",
            instant(SECOND, 123_456_789),
        ),
        ("2026-11-22T18:44:53.000+0800", instant(SECOND, 0)),
        ("1795344293000", instant(SECOND, 0)),
        ("1795344293871", instant(SECOND, 871_000_000)),
        ("0000000000001", instant(0, 1_000_000)),
        ("1970-01-01T00:00:00Z", instant(0, 0)),
        ("2024-02-29T00:00:00Z", instant(1_709_164_800, 0)),
        ("2000-02-29T23:59:59Z", instant(951_868_799, 0)),
        ("1969-12-31T23:59:59Z", before(1)),
        ("9999-12-31T23:59:59-23:59", instant(253_402_387_139, 0)),
        ("0000-01-01T00:00:00+23:59", before(62_167_305_540)),
    ];
    for (text, expected) in rows {
        let time = Timestamp::parse(text).expect(text);
        assert_eq!((time.instant(), time.as_str()), (expected, text));
    }
}

fn refuses(expected: TimeError, texts: &[&str]) {
    for text in texts {
        assert_eq!(Timestamp::parse(text), Err(expected), "{text:?}");
    }
}

#[test]
fn refuses_shapes_that_nobody_writes() {
    refuses(
        Shape,
        &[
            "",
            "now",
            "2026-11-22",
            "2026-11-22T10:44:53",
            "2026-11-22T10:44Z",
            "2026-11-22 10:44:53Z",
            "2026-11-22t10:44:53Z",
            "2026-11-22T10:44:53z",
            " 2026-11-22T10:44:53Z",
            "2026-11-22T10:44:53Z ",
            "2026-11-22T10:44:53Z\n",
            "2026-11-22T10:44:53ZZ",
            "2026-11-22T10:44:53 +08:00",
            "2026-11-22T10:44:53+08",
            "2026-11-22T10:44:53+8:00",
            "2026-11-22T10:44:53+08:000",
            "2026-11-22T10:44:53+08::00",
            "2026-11-22T10:44:53\u{2212}08:00",
            "2026-11-22T10:44:53.Z",
            "2026-11-22T10:44:53,5Z",
            "2026-11-22T10:44:53.1234567890Z",
            "20261122T104453Z",
            "26-11-22T10:44:53Z",
            "+2026-11-22T10:44:53Z",
            "12026-11-22T10:44:53Z",
            "2026-1-22T10:44:53Z",
            "2026-11-22T1\u{0660}:44:53Z",
            "2026-W47-7T10:44:53Z",
            "Sun, 22 Nov 2026 10:44:53 GMT",
            "1795344293",
            "179534429387",
            "17953442938710",
            "179534429387a",
            "-179534429387",
            "+179534429387",
            "179534429387\u{0661}",
        ],
    );
}

#[test]
fn refuses_times_that_are_not_on_the_calendar() {
    refuses(
        Impossible,
        &[
            "2026-02-29T10:44:53Z",
            "2026-02-30T10:44:53Z",
            "1900-02-29T10:44:53Z",
            "2026-04-31T10:44:53Z",
            "2026-00-22T10:44:53Z",
            "2026-13-22T10:44:53Z",
            "2026-11-00T10:44:53Z",
            "2026-11-32T10:44:53Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T10:60:53Z",
            "2026-11-22T10:44:61Z",
            "2026-11-22T10:44:53+24:00",
            "2026-11-22T10:44:53+08:60",
        ],
    );
}

#[test]
fn refuses_a_leap_second() {
    refuses(Impossible, &["2016-12-31T23:59:60Z"]);
}

#[test]
fn writes_whole_seconds_with_the_offset() {
    let rows = [
        ("Z", "2026-11-22T10:44:53Z"),
        ("+08:00", "2026-11-22T18:44:53+08:00"),
        ("-05:30", "2026-11-22T05:14:53-05:30"),
        ("+00:00", "2026-11-22T10:44:53+00:00"),
        ("-00:30", "2026-11-22T10:14:53-00:30"),
    ];
    for (offset, expected) in rows {
        let time = Timestamp::at(instant(SECOND, 999_999_999), offset.parse().unwrap());
        assert_eq!(
            (time.as_str(), time.instant()),
            (expected, instant(SECOND, 0)),
            "{offset}"
        );
    }
}

#[test]
fn writes_the_nearest_year_of_four_digits() {
    let far = Duration::from_secs(1 << 60);
    let rows = [
        (SystemTime::UNIX_EPOCH + far, "Z", "9999-12-31T23:59:59Z"),
        (
            SystemTime::UNIX_EPOCH + far,
            "+08:00",
            "9999-12-31T23:59:59+08:00",
        ),
        (SystemTime::UNIX_EPOCH - far, "Z", "0000-01-01T00:00:00Z"),
        (
            SystemTime::UNIX_EPOCH - Duration::from_millis(1),
            "Z",
            "1969-12-31T23:59:59Z",
        ),
    ];
    for (instant, offset, expected) in rows {
        assert_eq!(
            Timestamp::at(instant, offset.parse().unwrap()).as_str(),
            expected
        );
    }
}

#[test]
fn measures_skew_in_both_directions() {
    let time = Timestamp::parse("2026-11-22T10:44:53Z").unwrap();
    assert_eq!(time.skew(instant(SECOND + 300, 0)), Duration::from_mins(5));
    assert_eq!(time.skew(instant(SECOND - 300, 0)), Duration::from_mins(5));
    assert_eq!(time.skew(instant(SECOND, 0)), Duration::ZERO);
}

#[test]
fn refuses_offsets_of_other_shapes() {
    for text in [
        "",
        "z",
        "UTC",
        "+0800",
        "08:00",
        "+8:00",
        "+08:00 ",
        "+24:00",
        "+08:60",
        "-00:00",
        "+08:0\u{660}",
    ] {
        assert_eq!(text.parse::<Offset>(), Err(OffsetError), "{text:?}");
    }
}

#[test]
fn writes_utc_unless_told_otherwise() {
    assert_eq!(Offset::default().to_string(), "Z");
}
