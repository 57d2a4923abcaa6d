//! The folders that this process may read once it is confined, and what that means for a file that cannot be read.
//!
//! The kernel answers "permission denied" both for a file's mode and for a file outside of these folders; only the latter is
//! mended by a restart. Filled by `cli` when Landlock is in force; asked by every room that reads files again.

use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

/// The most symbolic links on the way to a file, as Linux has it.
const MOST_LINKS: usize = 40;
/// Links of the system whose folder holds far more than what they lead to.
const SYSTEM_LINKS: [&str; 2] = ["/var/run", "/var/lock"];

static READABLE: OnceLock<BTreeSet<PathBuf>> = OnceLock::new();

/// From now on only files in these folders can be read.
pub fn confined_to(folders: BTreeSet<PathBuf>) {
    let real = folders.into_iter().map(|folder| real(&folder)).collect();
    let _set_before = READABLE.set(real);
}

/// The error, with its cause if that is the confinement.
pub fn explain(file: &Path, error: io::Error) -> io::Error {
    let is_outside = |folders: &BTreeSet<PathBuf>| {
        let file = real(file);
        !folders.iter().any(|folder| file.starts_with(folder))
    };
    if error.kind() != ErrorKind::PermissionDenied || !READABLE.get().is_some_and(is_outside) {
        return error;
    }
    let text = format!(
        "{} is outside of the folders that were readable at the start (Landlock); restart the sidecar, or \
         set hardening.landlock to off",
        real(file).display()
    );
    io::Error::new(ErrorKind::PermissionDenied, text)
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize()
        .unwrap_or_else(|_missing| path.to_owned())
}

/// The folders from which a file is read, now and after links on the way to it were swapped: the one it is named in, the
/// one of every symbolic link on the way, and the one it is in. Of a file in the root folder itself only the file: its
/// folder would be everything.
pub fn folders_of(file: &Path) -> Vec<PathBuf> {
    let named = std::path::absolute(file).unwrap_or_else(|_no_folder| file.to_owned());
    let mut folders = vec![folder(&named)];
    let mut rest: VecDeque<OsString> = parts(&named);
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    while let Some(part) = rest.pop_front() {
        match part.to_str() {
            Some("/") => at = PathBuf::from("/"),
            Some("..") => {
                at.pop();
            }
            _ => at.push(part),
        }
        let Ok(target) = fs::read_link(&at) else {
            continue;
        };
        links += 1;
        if links > MOST_LINKS {
            return folders;
        }
        let is_systems = SYSTEM_LINKS.iter().any(|link| at == Path::new(link));
        at.pop();
        if !is_systems && at.parent().is_some() && !folders.contains(&at) {
            folders.push(at.clone());
        }
        for part in parts(&target).into_iter().rev() {
            rest.push_front(part);
        }
    }
    let last = folder(&at);
    if !folders.contains(&last) {
        folders.push(last);
    }
    folders
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    parts.map(|part| part.as_os_str().to_owned()).collect()
}

fn folder(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if folder.parent().is_some() => folder.to_owned(),
        _ => file.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_link_on_the_way_opens_its_folder_and_the_root_never_does() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        for name in ["keys", "mount/..v1", "deep/er", "there"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        fs::write(at("mount/..v1/key.pem"), "").unwrap();
        symlink("..v1", at("mount/..data")).unwrap();
        symlink("..data/key.pem", at("mount/key.pem")).unwrap();
        symlink(at("mount/key.pem"), at("there/key.pem")).unwrap();
        symlink("../there", at("deep/link")).unwrap();
        symlink("../deep/er/../link/key.pem", at("keys/key.pem")).unwrap();
        let names = ["keys", "deep", "there", "mount", "mount/..v1"];
        assert_eq!(folders_of(&at("keys/key.pem")), names.map(at));
        assert_eq!(folders_of(&at("deep/er/new.pem")), [at("deep/er")]);
        assert_eq!(folders_of(Path::new("/key.pem")), [Path::new("/key.pem")]);
        let own = std::env::current_dir().unwrap();
        assert_eq!(folders_of(Path::new("Cargo.toml")), [own]);
        symlink("circle", at("circle")).unwrap();
        assert_eq!(folders_of(&at("circle")), [root]);
    }

    #[test]
    fn only_what_is_outside_is_explained_as_that() {
        let folder = tempfile::tempdir().unwrap();
        confined_to([folder.path().to_owned()].into());
        let denied = || io::Error::from(ErrorKind::PermissionDenied);
        let text = |file: &Path, error| explain(file, error).to_string();
        assert!(text(Path::new("/elsewhere/key.pem"), denied()).contains("Landlock"));
        let inside = folder.path().join("key.pem");
        assert!(!text(&inside, denied()).contains("Landlock"));
        let missing = io::Error::from(ErrorKind::NotFound);
        assert!(!text(Path::new("/elsewhere"), missing).contains("Landlock"));
    }
}
