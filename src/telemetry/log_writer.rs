//! Writes log lines to stdout on a thread of its own, so that no request ever waits for the reader of the log.
//!
//! Lines go into a queue that is bounded in lines and in bytes. When it is full, and when stdout cannot be written, lines
//! are dropped and counted in `countersign_log_lines_lost_total`; the number is logged once writing works again. Nothing
//! here fails or panics: a reader that is slow, gone, or on a full disk costs log lines only.
//!
//! `tracing-appender` is not used: its queue is bounded in lines alone, its thread starts at once, which would be before
//! the process is confined, and a line that could not be written is neither counted nor reported.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntCounter;
use rustix::event::{PollFd, PollFlags, poll};
use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

use super::redact::redact;
use crate::task;

/// The most lines that wait to be written.
const MAX_LINES: usize = 65_536;
/// The most bytes of lines that wait to be written.
const MAX_BYTES: usize = 8 * 1024 * 1024;

thread_local! {
    /// On the writer's thread: the line that it logs itself.
    static OWN_LINE: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
    static IS_WRITER: RefCell<bool> = const { RefCell::new(false) };
}

/// The queue of log lines; clones share it.
#[derive(Clone, Debug)]
pub(super) struct LogWriter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Lines that were dropped, for either reason.
    lost: Option<IntCounter>,
    queue: Mutex<Queue>,
    /// Notified when a line is added, and when the writer has nothing more to do.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    is_started: bool,
    is_writing: bool,
}

impl LogWriter {
    /// A queue without a writer: lines are kept until [`Self::start`], and lost ones are counted in `lost`.
    pub(super) fn new(lost: Option<IntCounter>) -> Self {
        Self {
            shared: Arc::new(Shared {
                lost,
                queue: Mutex::default(),
                changed: Condvar::new(),
            }),
        }
    }

    /// Starts the thread that writes to `output`. A second call does nothing.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(&self, output: File) -> io::Result<()> {
        {
            let mut queue = self.shared.lock();
            if queue.is_started {
                return Ok(());
            }
            queue.is_started = true;
        }
        let shared = Arc::clone(&self.shared);
        task::thread("log", move || shared.write_to(Output::new(output)))
    }

    /// Adds a line, which ends in a line feed; drops and counts it when the queue is full.
    pub(super) fn push(&self, line: Vec<u8>) {
        let mut queue = self.shared.lock();
        if queue.lines.len() >= MAX_LINES || queue.bytes + line.len() > MAX_BYTES {
            self.shared.count_lost();
            return;
        }
        queue.bytes += line.len();
        queue.lines.push_back(line);
        drop(queue);
        self.shared.changed.notify_all();
    }

    /// Whether no line waits and none is being written.
    pub(super) fn is_empty(&self) -> bool {
        let queue = self.shared.lock();
        queue.lines.is_empty() && !queue.is_writing
    }

    /// Waits until every line was written or dropped, for as long as `patience`. Returns whether all were.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let queue = self.shared.lock();
        let is_busy = |queue: &mut Queue| !queue.lines.is_empty() || queue.is_writing;
        let waited = self
            .shared
            .changed
            .wait_timeout_while(queue, patience, is_busy);
        let (_queue, result) = waited.unwrap_or_else(PoisonError::into_inner);
        !result.timed_out()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_lost(&self) {
        if let Some(lost) = &self.lost {
            lost.inc();
        }
    }

    /// The writer's thread, which runs until the process ends.
    fn write_to(&self, mut output: Output) {
        IS_WRITER.set(true);
        loop {
            let line = self.next();
            if output.write_line(&line) {
                if self.has_room() {
                    output.report_lost(self.lost.as_ref().map_or(0, IntCounter::get));
                }
            } else {
                self.count_lost();
            }
            self.lock().is_writing = false;
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Vec<u8> {
        let mut queue = self.lock();
        loop {
            if let Some(line) = queue.lines.pop_front() {
                queue.bytes -= line.len();
                queue.is_writing = true;
                return line;
            }
            let waited = self.changed.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether the writer is catching up, so that few lines are being dropped.
    fn has_room(&self) -> bool {
        let queue = self.lock();
        queue.lines.len() < MAX_LINES / 2 && queue.bytes < MAX_BYTES / 2
    }
}

/// Stdout, and what was lost on it.
struct Output {
    file: File,
    /// The last line was written in part, so the next one has to begin on a new line.
    is_torn: bool,
    /// The lost lines that were reported.
    reported: u64,
}

impl Output {
    fn new(file: File) -> Self {
        Self {
            file,
            is_torn: false,
            reported: 0,
        }
    }

    /// Writes a whole line, without keys; returns whether that worked.
    fn write_line(&mut self, line: &[u8]) -> bool {
        let clean = match std::str::from_utf8(line).map(redact) {
            Ok(Cow::Owned(clean)) => Cow::Owned(clean.into_bytes()),
            _ => Cow::Borrowed(line),
        };
        if self.is_torn {
            if self.write(b"\n") == 0 {
                return false;
            }
            self.is_torn = false;
        }
        let written = self.write(&clean);
        let is_whole = written == clean.len();
        self.is_torn = written > 0 && !is_whole;
        is_whole
    }

    /// Writes as much as can be written, and returns how much that was.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.file.write(rest) {
                Ok(0) => break,
                Ok(more) => written += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Whoever shares the pipe may have made it non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let mut ready = [PollFd::new(&self.file, PollFlags::OUT)];
                    if poll(&mut ready, None).is_err() {
                        break;
                    }
                }
                Err(_unwritable) => break,
            }
        }
        written
    }

    /// Logs how many lines were lost, once writing works again.
    fn report_lost(&mut self, lost: u64) {
        if lost <= self.reported {
            return;
        }
        let count = lost - self.reported;
        warn!(
            lost = count,
            "log lines were lost: stdout could not be written, or its reader was too slow"
        );
        // Without a line there is no subscriber, or the log level leaves it out.
        let own = OWN_LINE.take();
        if own.is_none_or(|line| self.write_line(&line)) {
            self.reported = lost;
        }
    }
}

/// One event's line, added to the queue when it is dropped.
#[derive(Debug)]
pub(super) struct PendingLine {
    writer: LogWriter,
    line: Vec<u8>,
}

impl Write for PendingLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for PendingLine {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.line);
        if IS_WRITER.with_borrow(|is_writer| *is_writer) {
            OWN_LINE.set(Some(line));
        } else if !line.is_empty() {
            self.writer.push(line);
        }
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = PendingLine;

    fn make_writer(&'a self) -> PendingLine {
        PendingLine {
            writer: self.clone(),
            line: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::fd::OwnedFd;

    use super::*;

    fn numbered(number: usize) -> Vec<u8> {
        format!("{number}\n").into_bytes()
    }

    #[test]
    fn lines_are_written_in_order_and_those_that_find_it_full_are_counted() {
        let (reader, writer) = io::pipe().unwrap();
        let lost = IntCounter::new("lost", "lost").unwrap();
        let log = LogWriter::new(Some(lost.clone()));
        for number in 0..MAX_LINES + 10 {
            log.push(numbered(number));
        }
        assert_eq!(lost.get(), 10);
        assert!(!log.flush(Duration::ZERO), "nobody writes yet");
        log.start(File::from(OwnedFd::from(writer))).unwrap();
        let mut lines = BufReader::new(reader).lines();
        for number in 0..MAX_LINES {
            assert_eq!(lines.next().unwrap().unwrap(), number.to_string());
        }
        assert!(log.flush(Duration::from_secs(30)));
        log.push(numbered(7));
        assert_eq!(lines.next().unwrap().unwrap(), "7");
    }

    #[test]
    fn the_queue_is_bounded_in_bytes() {
        let lost = IntCounter::new("lost", "lost").unwrap();
        let log = LogWriter::new(Some(lost.clone()));
        for _ in 0..100 {
            log.push(vec![b'x'; 1024 * 1024]);
        }
        assert_eq!(lost.get(), 92);
    }

    #[test]
    fn a_line_after_a_torn_one_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut output = Output::new(File::create(&path).unwrap());
        assert!(output.write_line(b"whole\n"));
        assert_eq!(output.write(b"to"), 2);
        output.is_torn = true;
        assert!(output.write_line(b"next\n"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole\nto\nnext\n");
    }
}
