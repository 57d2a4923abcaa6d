//! SoftHSM: real tokens in a folder of their own, in this process, behind p11-kit in another, or with
//! faults.
//!
//! SoftHSM and p11-kit find their files by the environment, and a process has only one. So a test with
//! tokens is a process of its own: [`alone`] runs the test's own binary again, for this one test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use countersign::keys::token::{self, Config, DEFAULT_SESSIONS};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::object::{Attribute, ObjectClass};
use cryptoki::session::UserType;
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;

use super::process::text;

/// SoftHSM itself.
pub const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
/// What speaks to `p11-kit server`.
const CLIENT: &str = "pkcs11/p11-kit-client.so";
/// The PIN of every token, and no other string in the tests.
pub const PIN: &str = "27182818";
/// The token every folder begins with.
pub const TOKEN: &str = "partner keys";

const FOLDER: &str = "COUNTERSIGN_TEST_TOKENS";

/// Runs a test in a process of its own, with a folder that holds one token without keys.
pub fn alone<F: FnOnce(&Tokens)>(test: F) {
    if let Ok(folder) = std::env::var(FOLDER) {
        test(&Tokens::make(folder.into()));
        token::finish();
        return;
    }
    // `it::module::test::{{closure}}` is the test `module::test` of the binary `it`.
    let name = std::any::type_name::<F>();
    let (_, name) = name.split_once("::").unwrap();
    let name = name.strip_suffix("::{{closure}}").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("timeout")
        .args(["-s", "KILL", "120"])
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(FOLDER, folder.path())
        .env("FAULTS", folder.path())
        .env("SOFTHSM2_CONF", folder.path().join("softhsm2.conf"))
        .env(
            "P11_KIT_SERVER_ADDRESS",
            address(&folder.path().join("socket")),
        )
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{stdout}\n{stderr}",
        output.status
    );
    assert!(
        stdout.contains("1 passed"),
        "{name} is not this test: {stdout}"
    );
    assert!(
        !stderr.contains(PIN) && !stdout.contains(PIN),
        "{stdout}\n{stderr}"
    );
}

fn address(socket: &Path) -> String {
    format!("unix:path={}", socket.display())
}

/// The tokens of one test.
pub struct Tokens {
    folder: PathBuf,
}

impl Tokens {
    fn make(folder: PathBuf) -> Self {
        let tokens = Self { folder };
        fs::create_dir(tokens.path("tokens")).unwrap();
        let config = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.path("tokens").display()
        );
        tokens.write("softhsm2.conf", &config);
        tokens.write("pin", &format!("{PIN}\n"));
        tokens.add(TOKEN);
        tokens
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// One more token.
    pub fn add(&self, label: &str) {
        let line = ["--init-token", "--free", "--label", label, "--so-pin", PIN];
        self.run("softhsm2-util", &[&line, &["--pin", PIN][..]].concat());
    }

    /// Puts a key in PEM onto the first token.
    pub fn import(&self, pem: &str, label: &str, id: &str) {
        self.write("import.pem", pem);
        let file = self.path("import.pem");
        let line = ["--import", text(&file), "--token", TOKEN, "--pin", PIN];
        self.run(
            "softhsm2-util",
            &[&line[..], &["--label", label, "--id", id, "--force"]].concat(),
        );
    }

    /// Runs `pkcs11-tool` on the first token.
    pub fn tool(&self, arguments: &[&str]) {
        let line = [
            "--module",
            SOFTHSM,
            "--token-label",
            TOKEN,
            "--login",
            "--pin",
            PIN,
        ];
        self.run("pkcs11-tool", &[&line, arguments].concat());
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(program);
        command.env("SOFTHSM2_CONF", self.path("softhsm2.conf"));
        command.args(arguments);
        succeed(&mut command);
    }

    /// The way to a key of the first token.
    pub fn config(&self, module: impl Into<PathBuf>, key: &str) -> Config {
        Config {
            module: module.into(),
            token_label: TOKEN.to_owned(),
            key_label: key.to_owned(),
            pin_file: Some(self.path("pin")),
            sessions: DEFAULT_SESSIONS,
        }
    }

    /// SoftHSM with faults; see `faulty_token.c`.
    pub fn faulty(&self) -> PathBuf {
        let module = self.path("faulty.so");
        let source = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/it/support/faulty_token.c"
        );
        let line = [
            "-shared",
            "-fPIC",
            "-Wall",
            "-Werror",
            "-o",
            text(&module),
            source,
            "-ldl",
        ];
        run("cc", &line);
        module
    }

    /// How often the module with faults was called.
    pub fn calls(&self, name: &str) -> usize {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        calls.lines().filter(|call| *call == name).count()
    }

    /// From now on every signature of the module with faults waits.
    pub fn hang(&self) {
        run("mkfifo", &[text(&self.path("hang"))]);
    }

    /// Ends that for as long as the answer is kept.
    pub fn release(&self) -> fs::File {
        let gate = self.path("released");
        fs::rename(self.path("hang"), &gate).unwrap();
        // Lets all go that wait at the other end; to open both ends needs nobody there.
        let mut both = fs::OpenOptions::new();
        both.read(true).write(true).open(gate).unwrap()
    }

    /// Plugs the tokens into a process of their own.
    pub fn plug_in(&self, module: &Path) -> Server {
        copy(&self.path("tokens"), &self.path("kept"));
        let socket = self.path("socket");
        let server = ["p11-kit", "server", "--foreground", "--name", text(&socket)];
        // It ends with the test, also with one that is killed, and keeps none of its pipes.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .args(server)
            .args(["--provider", text(module), "pkcs11:"])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("p11-kit: {error}; run scripts/test-deps.sh"));
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        // It prints its address once it listens there.
        stdout.read_line(&mut line).unwrap();
        assert!(line.contains(text(&socket)), "{line}");
        let folder = self.folder.clone();
        Server {
            child,
            socket,
            folder,
        }
    }
}

/// `p11-kit server`, which has a process for each of its clients. Dropping it unplugs the tokens.
pub struct Server {
    child: Child,
    socket: PathBuf,
    folder: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        run("kill", &["-s", "KILL", "--", &group]);
        self.child.wait().unwrap();
        let _gone_already = fs::remove_file(&self.socket);
        // SoftHSM writes a token's file at each login, and one that is killed leaves it half written,
        // which no token of metal does when it is pulled out.
        copy(&self.folder.join("kept"), &self.folder.join("tokens"));
    }
}

/// The module that reaches [`Server`].
pub fn client() -> PathBuf {
    // Debian keeps it in a folder named by the machine.
    let folders = fs::read_dir("/usr/lib").unwrap();
    let mut found = folders.map(|folder| folder.unwrap().path().join(CLIENT));
    let found = found.find(|path| path.exists());
    found.unwrap_or_else(|| panic!("no {CLIENT}; run scripts/test-deps.sh"))
}

/// Sets the `CKA_SIGN` of a private key of the first token to false.
pub fn forbid_to_sign(label: &str) {
    let softhsm = Pkcs11::new(SOFTHSM).unwrap();
    let arguments = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
    softhsm.initialize(arguments).unwrap();
    let slots = softhsm.get_slots_with_token().unwrap();
    let is_first = |slot: &Slot| softhsm.get_token_info(*slot).unwrap().label() == TOKEN;
    let slot = slots.into_iter().find(is_first).unwrap();
    let session = softhsm.open_rw_session(slot).unwrap();
    let pin = AuthPin::new(PIN.into());
    session.login(UserType::User, Some(&pin)).unwrap();
    let wanted = [
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::Label(label.into()),
    ];
    for key in session.find_objects(&wanted).unwrap() {
        let no = [Attribute::Sign(false)];
        session.update_attributes(key, &no).unwrap();
    }
    drop(session);
    softhsm.finalize().unwrap();
}

/// Makes a folder the same as another one.
fn copy(from: &Path, to: &Path) {
    run("rm", &["-rf", text(to)]);
    run("cp", &["-a", text(from), text(to)]);
}

fn run(program: &str, arguments: &[&str]) {
    succeed(Command::new(program).args(arguments));
}

fn succeed(command: &mut Command) {
    let output = command.output();
    let output = output.unwrap_or_else(|e| panic!("{command:?}: {e}; run scripts/test-deps.sh"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}
