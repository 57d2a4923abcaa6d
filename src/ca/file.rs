//! Writes files that are whole or not there.
//!
//! A reader sees the old content or the new one, never a part; a crash leaves a temporary file at
//! worst. Called by the directory of the CA and by the trust material.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use tempfile::NamedTempFile;

/// Writes or replaces a file with this mode.
pub(super) fn publish(file: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    // Made exclusively and with mode 0600, so a key is at no moment readable by others.
    let mut temporary = NamedTempFile::new_in(folder)?;
    temporary.write_all(content)?;
    temporary
        .as_file()
        .set_permissions(Permissions::from_mode(mode))?;
    temporary.as_file().sync_all()?;
    temporary.persist(file)?;
    Ok(())
}

/// Makes a directory with this mode if it is missing.
pub(super) fn make_directory(directory: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(directory)
}

/// Whether there is such a file.
pub(super) fn exists(file: &Path) -> bool {
    fs::symlink_metadata(file).is_ok()
}
