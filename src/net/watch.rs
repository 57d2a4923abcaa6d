//! Notices that files on disk were changed.
//!
//! Asks for each file's facts at an interval, one `stat` each, and follows links: a rename, a write in
//! place and the swap of a `..data` link above the file (Kubernetes) all change them. Notification by
//! the kernel (inotify) would miss links swapped further up, and network file systems. Refuses to know
//! what the files are for. Used for the certificate
//! of a listener, for keys and for the configuration.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use super::drain::{Drain, Phase};
use crate::task;

/// Files as they were when last looked at.
#[derive(Debug, Default)]
pub struct Watch {
    files: Vec<PathBuf>,
    seen: Vec<Result<Facts, io::ErrorKind>>,
}

/// What changes with a file. Two writes in place of one length look alike within one tick of the
/// kernel's clock, some milliseconds; whoever replaces files by renaming is safe from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Facts {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Of the inode: tells when a file that could not be read was made readable.
    changed: (i64, i64),
}

impl Watch {
    /// Looks at the files for the first time. To be made before they are read, so that no change in
    /// between is lost.
    pub fn new(files: Vec<PathBuf>) -> Self {
        let seen = look(&files);
        Self { files, seen }
    }

    /// Looks at further files for the first time.
    pub fn add(&mut self, files: Vec<PathBuf>) {
        self.seen.extend(look(&files));
        self.files.extend(files);
    }

    /// Whether any of the files changed, appeared or went since the last look.
    pub fn is_changed(&mut self) -> bool {
        let now = look(&self.files);
        now != std::mem::replace(&mut self.seen, now.clone())
    }

    /// Calls `changed` after each interval in which any of the files changed, appeared or went, until
    /// the drain closes. What changes during the call is noticed after it.
    pub async fn run<F, Reaction>(mut self, every: Duration, drain: Drain, mut changed: F)
    where
        F: FnMut() -> Reaction,
        Reaction: Future<Output = ()>,
    {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut closing = pin!(drain.reached(Phase::Closing));
        loop {
            tokio::select! {
                biased;
                () = &mut closing => return,
                _instant = ticks.tick() => {}
            }
            if self.is_changed_aside().await {
                changed().await;
            }
        }
    }

    /// The same as [`Self::is_changed`], away from the threads that serve, as a network file system may
    /// keep its caller waiting. May be given up at any time.
    pub async fn is_changed_aside(&mut self) -> bool {
        let files = self.files.clone();
        match task::aside(move || look(&files)).await {
            Ok(now) if now == self.seen => false,
            Ok(now) => {
                self.seen = now;
                true
            }
            Err(error) => {
                warn!(%error, "cannot look for changed files");
                false
            }
        }
    }
}

fn look(files: &[PathBuf]) -> Vec<Result<Facts, io::ErrorKind>> {
    files.iter().map(|file| Facts::of(file)).collect()
}

impl Facts {
    fn of(file: &Path) -> Result<Self, io::ErrorKind> {
        let facts = fs::metadata(file).map_err(|error| error.kind())?;
        Ok(Self {
            device: facts.dev(),
            inode: facts.ino(),
            size: facts.size(),
            modified: (facts.mtime(), facts.mtime_nsec()),
            changed: (facts.ctime(), facts.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::sleep;

    use super::*;

    const EVERY: Duration = Duration::from_secs(5);

    /// Counts the changes that are noticed in a folder's file; its time is not real.
    struct Watched {
        calls: Arc<AtomicUsize>,
        drain: Drain,
        task: tokio::task::JoinHandle<()>,
    }

    impl Watched {
        fn new(file: PathBuf) -> Self {
            let watch = Watch::new(vec![file]);
            let (calls, drain) = (Arc::new(AtomicUsize::new(0)), Drain::new());
            let counter = Arc::clone(&calls);
            let task = task::spawn(watch.run(EVERY, drain.clone(), move || {
                counter.fetch_add(1, Ordering::SeqCst);
                std::future::ready(())
            }));
            Self { calls, drain, task }
        }

        async fn calls(&self) -> usize {
            sleep(EVERY * 10).await;
            self.calls.load(Ordering::SeqCst)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_way_to_change_a_file_is_noticed_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for version in ["v1", "v2"] {
            fs::create_dir(path(version)).unwrap();
            fs::write(path(version).join("tls"), version).unwrap();
        }
        symlink("v1", path("..data")).unwrap();
        symlink("..data/tls", path("tls")).unwrap();
        let watched = Watched::new(path("tls"));
        assert_eq!(watched.calls().await, 0);

        fs::write(path("v1/tls"), "longer").unwrap();
        assert_eq!(watched.calls().await, 1, "in place");
        fs::write(path("new"), "longer").unwrap();
        fs::rename(path("new"), path("v1/tls")).unwrap();
        assert_eq!(watched.calls().await, 2, "renamed");
        symlink("v2", path("..data_tmp")).unwrap();
        fs::rename(path("..data_tmp"), path("..data")).unwrap();
        assert_eq!(watched.calls().await, 3, "a link above it");
        fs::remove_file(path("v2/tls")).unwrap();
        assert_eq!(watched.calls().await, 4, "gone");
        fs::write(path("v2/tls"), "back").unwrap();
        assert_eq!(watched.calls().await, 5, "back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_between_the_first_look_and_the_start_is_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tls");
        let watch = Watch::new(vec![file.clone()]);
        fs::write(&file, "there").unwrap();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let mut sender = Some(sender);
        task::spawn(watch.run(EVERY, Drain::new(), move || {
            let sender = sender.take();
            async move {
                let _told = sender.map(|sender| sender.send(()));
            }
        }));
        let told = tokio::time::timeout(EVERY * 10, receiver).await;
        told.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn watching_ends_with_the_drain() {
        let watched = Watched::new(PathBuf::from("absent"));
        watched.drain.enter(Phase::Draining);
        assert_eq!(watched.calls().await, 0);
        assert!(!watched.task.is_finished());
        watched.drain.enter(Phase::Closing);
        let ended = tokio::time::timeout(EVERY * 10, watched.task).await;
        ended.unwrap().unwrap();
    }
}
