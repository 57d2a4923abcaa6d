//! Builds OpenSSL once for every cargo profile of the workspace.
//!
//! `openssl-sys` calls this crate from its build script in place of the crate of the same name on crates.io,
//! which compiles the same C sources again for each profile and each target folder. The static libraries go to
//! `.openssl/VERSION-TARGET-HASH` in the workspace, and are reused as long as the version, the options, the
//! compiler and the checksums of the libraries are the same. A lock file lets builds that run side by side wait
//! for one another. Algorithms and protocols that neither the product nor `rustls-openssl` uses are left out of
//! the build, libssl among them.
//!
//! The source is that of the `openssl-src` 400 series, or the folder named by `OPENSSL_SOURCE_DIR`.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "build scripts and cargo communicate by the environment and stdout"
)]

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Names the unpacked source of another OpenSSL release to build.
const SOURCE: &str = "OPENSSL_SOURCE_DIR";

/// Where OpenSSL would look for its configuration; nothing here asks it to.
const OPENSSL_DIR: &str = "/usr/local/ssl";

/// The same for every profile: position-independent for both kinds of executables, sections that the linker can
/// drop, and no unwind tables, as no panic passes through OpenSSL.
const CFLAGS: &str = "-O2 -pipe -fPIC -ffunction-sections -fdata-sections \
                      -fno-asynchronous-unwind-tables -fno-unwind-tables";

const LIBRARIES: [&str; 2] = ["libcrypto.a", "libssl.a"];

/// Changes whenever the steps of the build do, so that libraries built by other steps are not reused.
const REVISION: u32 = 3;

/// All of libssl that is linked: `openssl-sys` calls it before anything else. TLS is rustls, so the rest of libssl is
/// not compiled, and code that uses it does not link.
const LIBSSL: &str = "\
#include <openssl/crypto.h>
int OPENSSL_init_ssl(uint64_t options, const OPENSSL_INIT_SETTINGS *settings) {
    return OPENSSL_init_crypto(options | OPENSSL_INIT_ADD_ALL_CIPHERS | OPENSSL_INIT_ADD_ALL_DIGESTS, settings);
}
";

/// Options of OpenSSL's `Configure`: static libraries, without what nothing here uses.
const OPTIONS: &[&str] = &[
    "no-shared",
    "no-module",
    "no-tests",
    "no-apps",
    "no-docs",
    "no-dso",
    "no-async",
    "no-afalgeng",
    "no-ui-console",
    // Protocols; TLS is rustls.
    "no-cmp",
    "no-cms",
    "no-comp",
    "no-ct",
    "no-dtls",
    "no-http",
    "no-nextprotoneg",
    "no-ocsp",
    "no-psk",
    "no-quic",
    "no-rfc3779",
    "no-srp",
    "no-srtp",
    "no-ssl-trace",
    "no-ts",
    "no-zlib",
    // Algorithms.
    "no-aria",
    "no-bf",
    "no-camellia",
    "no-cast",
    "no-dsa",
    "no-ec2m",
    "no-gost",
    "no-idea",
    "no-legacy",
    "no-lms",
    "no-md2",
    "no-md4",
    "no-mdc2",
    "no-rc2",
    "no-rc4",
    "no-rc5",
    "no-rmd160",
    "no-seed",
    "no-siphash",
    "no-slh-dsa",
    "no-sm2",
    "no-sm3",
    "no-sm4",
    "no-weak-ssl-ciphers",
    "no-whirlpool",
];

/// The build that `openssl-sys` asks for.
#[derive(Debug)]
pub struct Build {
    openssl_dir: PathBuf,
}

/// Where the headers and libraries are.
#[derive(Debug)]
pub struct Artifacts {
    prefix: PathBuf,
}

impl Artifacts {
    /// The folder of the headers.
    pub fn include_dir(&self) -> PathBuf {
        self.prefix.join("include")
    }

    /// The folder of the static libraries.
    pub fn lib_dir(&self) -> PathBuf {
        self.prefix.join("lib")
    }
}

impl Default for Build {
    fn default() -> Self {
        Self::new()
    }
}

impl Build {
    /// A build with the workspace's options.
    pub fn new() -> Self {
        Self {
            openssl_dir: PathBuf::from(OPENSSL_DIR),
        }
    }

    /// Sets where OpenSSL looks for its configuration.
    pub fn openssl_dir(&mut self, folder: impl AsRef<Path>) -> &mut Self {
        folder.as_ref().clone_into(&mut self.openssl_dir);
        self
    }

    /// Builds OpenSSL, or finds the one that was built before.
    ///
    /// # Panics
    /// When it cannot be built; the message names the step and its log.
    #[expect(
        clippy::panic,
        reason = "a build script reports failure to cargo by ending badly"
    )]
    pub fn build(&mut self) -> Artifacts {
        println!("cargo:rerun-if-env-changed={SOURCE}");
        match self.try_build() {
            Ok(artifacts) => artifacts,
            Err(problem) => panic!("{problem}"),
        }
    }

    fn try_build(&self) -> Result<Artifacts, String> {
        let target = env::var("TARGET").map_err(|error| format!("TARGET: {error}"))?;
        let platform = platform(&target)?;
        let compiler = cc::Build::new()
            .cargo_metadata(false)
            .opt_level(2)
            .get_compiler();
        let source = source();
        let version = version(&source)?;

        let options = self.options(platform);
        let mut identity = DefaultHasher::new();
        identity.write_u32(REVISION);
        for part in &options {
            identity.write(part.as_encoded_bytes());
        }
        identity.write(CFLAGS.as_bytes());
        identity.write(source.as_os_str().as_encoded_bytes());
        identity.write(&compiler_version(compiler.path()));
        let name = format!("{version}-{target}-{:016x}", identity.finish());
        let folder = root().join(&name);
        let prefix = folder.join("usr/local");

        fs::create_dir_all(root()).map_err(|error| at(&root(), &error))?;
        let lock_file = root().join(format!("{name}.lock"));
        let lock = File::create(&lock_file).map_err(|error| at(&lock_file, &error))?;
        lock.lock().map_err(|error| at(&lock_file, &error))?;

        let stamp = folder.join("checksums");
        if let Ok(expected) = fs::read_to_string(&stamp)
            && checksums(&prefix).is_ok_and(|found| found == expected)
        {
            return Ok(Artifacts { prefix });
        }
        remove(&folder)?;
        let work = folder.join("build");
        copy(&source, &work)?;
        let log = folder.join("build.log");
        let step = |command: &mut Command| run(command.current_dir(&work), &log);
        let perl = env::var_os("PERL").unwrap_or_else(|| "perl".into());
        step(
            Command::new(perl)
                .arg("./Configure")
                .args(&options)
                .env_remove("CROSS_COMPILE")
                .env("SOURCE_DATE_EPOCH", "0")
                .env("CC", compiler.path())
                .env("CFLAGS", CFLAGS),
        )?;
        let mut make = Command::new("make");
        make.args(["build_generated", "libcrypto.a"])
            .env("SOURCE_DATE_EPOCH", "0");
        // Cargo's job server decides how many compilers run.
        if let Some(flags) = env::var_os("CARGO_MAKEFLAGS") {
            make.env("MAKEFLAGS", flags);
        }
        step(&mut make)?;
        let stub = work.join("libssl.c");
        fs::write(&stub, LIBSSL).map_err(|error| at(&stub, &error))?;
        step(
            Command::new(compiler.path())
                .args(CFLAGS.split_whitespace())
                .args(["-Iinclude", "-c", "libssl.c"]),
        )?;
        step(Command::new("ar").args(["rcs", "libssl.a", "libssl.o"]))?;
        install(&work, &prefix)?;
        remove(&work)?;
        let found = checksums(&prefix).map_err(|error| at(&prefix, &error))?;
        fs::write(&stamp, found).map_err(|error| at(&stamp, &error))?;
        Ok(Artifacts { prefix })
    }

    fn options(&self, platform: &str) -> Vec<OsString> {
        let mut directory = OsString::from("--openssldir=");
        directory.push(&self.openssl_dir);
        // What is compiled in names no folder of the machine that builds.
        let mut options = vec![
            OsString::from(platform),
            "--prefix=/usr/local".into(),
            "--libdir=lib".into(),
            directory,
        ];
        options.extend(OPTIONS.iter().map(OsString::from));
        options
    }
}

/// OpenSSL's name for a target of rustc.
fn platform(target: &str) -> Result<&'static str, String> {
    Ok(match target {
        "x86_64-unknown-linux-gnu" => "linux-x86_64",
        "aarch64-unknown-linux-gnu" => "linux-aarch64",
        "x86_64-apple-darwin" => "darwin64-x86_64-cc",
        "aarch64-apple-darwin" => "darwin64-arm64-cc",
        _ => {
            return Err(format!(
                "no OpenSSL build for {target}: set OPENSSL_NO_VENDOR=1 and OPENSSL_DIR to use an installed one"
            ));
        }
    })
}

fn source() -> PathBuf {
    env::var_os(SOURCE).map_or_else(openssl_source::source_dir, PathBuf::from)
}

/// The version that the source states, such as `4.0.3`.
fn version(source: &Path) -> Result<String, String> {
    let file = source.join("VERSION.dat");
    let text = fs::read_to_string(&file).map_err(|error| at(&file, &error))?;
    let part = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .ok_or_else(|| format!("{}: no {name}", file.display()))
    };
    Ok(format!(
        "{}.{}.{}",
        part("MAJOR")?,
        part("MINOR")?,
        part("PATCH")?
    ))
}

/// The folder of all builds, in the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.openssl")
}

fn compiler_version(compiler: &Path) -> Vec<u8> {
    let output = Command::new(compiler).arg("--version").output();
    output.map(|output| output.stdout).unwrap_or_default()
}

/// A line for each library: its checksum and its name. It detects damage, not an attacker, who could change the
/// binary just as well.
fn checksums(prefix: &Path) -> io::Result<String> {
    let line = |name: &&str| {
        let mut hasher = DefaultHasher::new();
        hasher.write(&fs::read(prefix.join("lib").join(name))?);
        Ok(format!("{:016x} {name}\n", hasher.finish()))
    };
    LIBRARIES.iter().map(line).collect()
}

/// Copies headers and libraries out of a finished build.
fn install(work: &Path, prefix: &Path) -> Result<(), String> {
    let lib = prefix.join("lib");
    fs::create_dir_all(&lib).map_err(|error| at(&lib, &error))?;
    copy(
        &work.join("include/openssl"),
        &prefix.join("include/openssl"),
    )?;
    for name in LIBRARIES {
        let target = lib.join(name);
        fs::copy(work.join(name), &target).map_err(|error| at(&target, &error))?;
    }
    Ok(())
}

fn run(command: &mut Command, log: &Path) -> Result<(), String> {
    let open = || File::options().create(true).append(true).open(log);
    let output = open().map_err(|error| at(log, &error))?;
    let errors = open().map_err(|error| at(log, &error))?;
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .status()
        .map_err(|error| {
            format!(
                "OpenSSL's build cannot run {name}: {error}; install perl, make and a C compiler"
            )
        })?;
    if status.success() {
        return Ok(());
    }
    let text = fs::read_to_string(log).unwrap_or_default();
    let last: Vec<&str> = text.lines().rev().take(20).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Err(format!(
        "OpenSSL's build failed, {name}: {status}\n{}\nthe whole log is {}",
        last.join("\n"),
        log.display()
    ))
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    fs::create_dir_all(to).map_err(|error| at(to, &error))?;
    for entry in fs::read_dir(from).map_err(|error| at(from, &error))? {
        let entry = entry.map_err(|error| at(from, &error))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target)?;
        } else {
            fs::copy(&path, &target).map_err(|error| at(&path, &error))?;
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<(), String> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(folder, &error)),
        _ => Ok(()),
    }
}

fn at(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}
