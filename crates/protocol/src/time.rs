//! `Request-Time` and `Response-Time`: the text that is signed and the instant it means.
//!
//! A [`Timestamp`] keeps the text exactly as it came, because the text is what the signature covers,
//! and beside it the instant, to be compared with a clock. This module asks no clock: the caller
//! brings the time. It accepts the shapes seen from Alipay+ and the official SDKs and nothing else:
//! seconds or 1 to 9 fraction digits, `Z`, `+08:00` or `+0800`, and epoch milliseconds of 13 digits.

use std::{
    error::Error,
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use ::time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

/// 0000-01-01T00:00:00 and 9999-12-31T23:59:59 as seconds since 1970: the years of four digits.
const FIRST_SECOND: i64 = -62_167_219_200;
const LAST_SECOND: i64 = 253_402_300_799;

/// A message time: the signed text and the instant it stands for.
///
/// Two timestamps are equal when their texts are, so `…Z` and `…+00:00` differ.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Timestamp {
    literal: Box<str>,
    instant: SystemTime,
}

/// The offset from UTC that written times carry: `Z` (the default) or `±hh:mm`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Offset(Option<UtcOffset>);

/// Why a text is not a [`Timestamp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeError {
    /// None of the accepted shapes.
    Shape,
    /// A day, hour or offset that does not exist. A leap second (`:60`) counts as one: no peer
    /// writes it, and it could not be told from the next second.
    Impossible,
}

/// The text is neither `Z` nor `±hh:mm` with an offset of less than a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetError;

impl Timestamp {
    /// Reads a time in one of the documented shapes, without trimming.
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        let instant = match text.len() {
            13 => epoch_milliseconds(text)?,
            _ => iso_8601(text.as_bytes())?,
        };
        Ok(Self {
            literal: text.into(),
            instant,
        })
    }

    /// Writes an instant as ISO 8601 with whole seconds; the fraction is cut off.
    ///
    /// The format has years of four digits: an instant outside 0000 to 9999 becomes the nearest one
    /// inside.
    pub fn at(instant: SystemTime, offset: Offset) -> Self {
        let ahead = i64::from(offset.0.map_or(0, UtcOffset::whole_seconds));
        let local = whole_seconds(instant)
            .saturating_add(ahead)
            .clamp(FIRST_SECOND, LAST_SECOND);
        let shown = OffsetDateTime::UNIX_EPOCH.saturating_add(::time::Duration::seconds(local));
        let literal = format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{offset}",
            shown.year(),
            u8::from(shown.month()),
            shown.day(),
            shown.hour(),
            shown.minute(),
            shown.second(),
        );
        Self {
            literal: literal.into(),
            instant: since_epoch(local - ahead),
        }
    }

    /// The text, as it is signed and sent.
    pub fn as_str(&self) -> &str {
        &self.literal
    }

    /// The instant the text means.
    pub fn instant(&self) -> SystemTime {
        self.instant
    }

    /// How far this time is from `now`, in either direction.
    pub fn skew(&self, now: SystemTime) -> Duration {
        self.instant
            .duration_since(now)
            .unwrap_or_else(|past| past.duration())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.literal)
    }
}

impl FromStr for Timestamp {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Offset {
    /// `Z`.
    pub const UTC: Self = Self(None);
}

impl FromStr for Offset {
    type Err = OffsetError;

    /// Reads `Z`, or `±hh:mm`. `-00:00` is refused: in RFC 3339 it means "offset unknown".
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "Z" {
            return Ok(Self::UTC);
        }
        let colon = text.as_bytes().get(3) == Some(&b':');
        if !colon || text == "-00:00" {
            return Err(OffsetError);
        }
        let mut rest = Rest(text.as_bytes());
        let offset = rest.offset().and_then(|offset| rest.end().map(|()| offset));
        offset.map(|offset| Self(Some(offset))).or(Err(OffsetError))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(offset) = self.0 else {
            return f.write_str("Z");
        };
        let sign = if offset.is_negative() { '-' } else { '+' };
        let (hours, minutes, _) = offset.as_hms();
        write!(
            f,
            "{sign}{:02}:{:02}",
            hours.unsigned_abs(),
            minutes.unsigned_abs()
        )
    }
}

impl fmt::Display for TimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shape => {
                "the time is none of 2026-11-22T18:44:53+08:00 (also +0800 or Z, also with a fraction) \
                 and 13 digits of epoch milliseconds"
            }
            Self::Impossible => "the time is no time of the calendar",
        })
    }
}

impl Error for TimeError {}

impl fmt::Display for OffsetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the offset is neither Z nor of the form +08:00")
    }
}

impl Error for OffsetError {}

fn epoch_milliseconds(text: &str) -> Result<SystemTime, TimeError> {
    let mut rest = Rest(text.as_bytes());
    let milliseconds = rest.digits(13)?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds))
}

fn iso_8601(text: &[u8]) -> Result<SystemTime, TimeError> {
    let mut rest = Rest(text);
    let date = rest.date()?;
    rest.exactly(b'T')?;
    let time = rest.time()?;
    let offset = rest.offset()?;
    rest.end()?;
    Ok(PrimitiveDateTime::new(date, time)
        .assume_offset(offset)
        .into())
}

/// What is still to be read. Each step takes from the front or says why it cannot.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn date(&mut self) -> Result<Date, TimeError> {
        let year = self.year()?;
        self.exactly(b'-')?;
        let month = self.pair()?;
        self.exactly(b'-')?;
        let day = self.pair()?;
        let month = Month::try_from(month).map_err(impossible)?;
        Date::from_calendar_date(year, month, day).map_err(impossible)
    }

    fn time(&mut self) -> Result<Time, TimeError> {
        let hour = self.pair()?;
        self.exactly(b':')?;
        let minute = self.pair()?;
        self.exactly(b':')?;
        let second = self.pair()?;
        let nanosecond = self.fraction()?;
        Time::from_hms_nano(hour, minute, second, nanosecond).map_err(impossible)
    }

    /// Nothing, or a dot and 1 to 9 digits, as nanoseconds.
    fn fraction(&mut self) -> Result<u32, TimeError> {
        if self.exactly(b'.').is_err() {
            return Ok(0);
        }
        let digits = self
            .0
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if !(1..=9).contains(&digits) {
            return Err(TimeError::Shape);
        }
        let scale = (digits..9).fold(1, |scale, _| scale * 10);
        u32::try_from(self.digits(digits)? * scale).map_err(impossible)
    }

    /// `Z`, `±hh:mm` or `±hhmm`.
    fn offset(&mut self) -> Result<UtcOffset, TimeError> {
        if self.exactly(b'Z').is_ok() {
            return Ok(UtcOffset::UTC);
        }
        let east = self.exactly(b'+').is_ok();
        if !east {
            self.exactly(b'-')?;
        }
        let hours = i32::from(self.pair()?);
        self.exactly(b':').ok();
        let minutes = i32::from(self.pair()?);
        if hours > 23 || minutes > 59 {
            return Err(TimeError::Impossible);
        }
        let seconds = (hours * 60 + minutes) * 60;
        UtcOffset::from_whole_seconds(if east { seconds } else { -seconds }).map_err(impossible)
    }

    fn end(&self) -> Result<(), TimeError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(TimeError::Shape)
        }
    }

    fn exactly(&mut self, expected: u8) -> Result<(), TimeError> {
        let [first, rest @ ..] = self.0 else {
            return Err(TimeError::Shape);
        };
        if *first != expected {
            return Err(TimeError::Shape);
        }
        self.0 = rest;
        Ok(())
    }

    fn pair(&mut self) -> Result<u8, TimeError> {
        u8::try_from(self.digits(2)?).map_err(impossible)
    }

    fn year(&mut self) -> Result<i32, TimeError> {
        i32::try_from(self.digits(4)?).map_err(impossible)
    }

    /// Exactly `count` ASCII digits; at most 18, so that the number fits.
    fn digits(&mut self, count: usize) -> Result<u64, TimeError> {
        let (digits, rest) = self.0.split_at_checked(count).ok_or(TimeError::Shape)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(TimeError::Shape);
        }
        self.0 = rest;
        Ok(digits
            .iter()
            .fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
    }
}

fn impossible<E>(_: E) -> TimeError {
    TimeError::Impossible
}

/// Whole seconds since 1970, rounded down.
fn whole_seconds(instant: SystemTime) -> i64 {
    match instant.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => {
            let before = before.duration();
            let up = u64::from(before.subsec_nanos() > 0);
            i64::try_from(before.as_secs().saturating_add(up)).map_or(i64::MIN, |seconds| -seconds)
        }
    }
}

fn since_epoch(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    match seconds {
        0.. => SystemTime::UNIX_EPOCH + distance,
        _ => SystemTime::UNIX_EPOCH - distance,
    }
}
