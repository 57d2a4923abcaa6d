//! The legacy clients of `tests/clients`: how each is started, and by which of its runtime's own
//! settings it finds a proxy and trusts a CA.
//!
//! Each prints one line of JSON: status, verdict, error, body. `scripts/test-deps.sh` installs what
//! they need; a missing one fails its test.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// What a client is told by its surroundings.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The proxy, if there is one; else the network leads to the sidecar.
    pub proxy: Option<SocketAddr>,
    /// The folder with `ca.pem`, `ca-bundle.pem` and `truststore.p12`.
    pub trust: PathBuf,
}

/// A client with its name for messages.
#[derive(Clone, Copy)]
pub struct Client {
    pub name: &'static str,
    start: fn(&Surroundings) -> Start,
    /// Whether it can be told to use a proxy for https.
    pub takes_proxy: bool,
}

/// A command line, and what is set in the environment.
struct Start {
    line: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

/// All that pay over https. The official SDK is not among them: it needs keys.
pub const HTTPS: &[Client] = &[
    client("curl", |around| {
        script("curl.sh")
            .trusting("CURL_CA_BUNDLE", around, "ca-bundle.pem")
            .through("HTTPS_PROXY", around)
    }),
    client("python requests", |around| {
        start(&venv_python(), "python_requests.py")
            .trusting("REQUESTS_CA_BUNDLE", around, "ca-bundle.pem")
            .through("HTTPS_PROXY", around)
    }),
    client("python urllib", |around| {
        start("/usr/bin/python3", "python_urllib.py")
            .trusting("SSL_CERT_FILE", around, "ca-bundle.pem")
            .through("HTTPS_PROXY", around)
    }),
    client("node axios", |around| node("node_axios.cjs", around)),
    client("node axios 1.16.0, absolute form", |around| {
        node("node_axios.cjs", around).argument("axios-1.16.0")
    }),
    client("node axios with an agent", |around| {
        node("node_axios_agent.cjs", around)
    }),
    client("node undici", |around| {
        node("node_undici.cjs", around).through("HTTP_PROXY", around)
    }),
    Client {
        takes_proxy: false,
        ..client("node fetch", |around| node("node_fetch.mjs", around))
    },
    client("java HttpURLConnection", |around| java("Pay.java", around)),
    client("java HttpClient", |around| {
        java("PayHttpClient.java", around)
    }),
    client("php curl", |around| {
        php("curl.cainfo", "php_curl.php", around).through("HTTPS_PROXY", around)
    }),
    client("php streams", |around| {
        php("openssl.cafile", "php_streams.php", around).through("HTTPS_PROXY", around)
    }),
    client("ruby Net::HTTP", |around| {
        start("ruby", "ruby_net_http.rb")
            .trusting("SSL_CERT_FILE", around, "ca-bundle.pem")
            .through("http_proxy", around)
    }),
];

impl Client {
    /// Its command; `program` makes one of a program's name, such as inside a namespace.
    pub fn command(&self, around: &Surroundings, program: impl Fn(&str) -> Command) -> Command {
        let start = (self.start)(around);
        let (name, rest) = start.line.split_first().unwrap();
        let mut command = program(name);
        command.args(rest).envs(start.environment);
        command
    }
}

impl Start {
    fn trusting(mut self, variable: &'static str, around: &Surroundings, file: &str) -> Self {
        let path = around.trust.join(file);
        self.environment.push((variable, text(&path)));
        self
    }

    fn through(mut self, variable: &'static str, around: &Surroundings) -> Self {
        let proxy = around.proxy.map(|proxy| format!("http://{proxy}"));
        self.environment
            .extend(proxy.map(|proxy| (variable, proxy)));
        self
    }

    fn argument(mut self, argument: &str) -> Self {
        self.line.push(argument.to_owned());
        self
    }
}

const fn client(name: &'static str, start: fn(&Surroundings) -> Start) -> Client {
    Client {
        name,
        start,
        takes_proxy: true,
    }
}

fn start(program: &str, file: &str) -> Start {
    Start {
        line: vec![program.to_owned(), text(&clients().join(file))],
        environment: Vec::new(),
    }
}

fn script(file: &str) -> Start {
    Start {
        line: vec![text(&clients().join(file))],
        environment: Vec::new(),
    }
}

fn node(file: &str, around: &Surroundings) -> Start {
    let mut start = start("node", file)
        .trusting("NODE_EXTRA_CA_CERTS", around, "ca.pem")
        .through("HTTPS_PROXY", around);
    let modules = root().join(".testbed/node/node_modules");
    start.environment.push(("NODE_PATH", text(&modules)));
    start
}

fn php(setting: &str, file: &str, around: &Surroundings) -> Start {
    let bundle = text(&around.trust.join("ca-bundle.pem"));
    let mut start = start("php", file);
    let setting = format!("{setting}={bundle}");
    start.line.splice(1..1, ["-d".to_owned(), setting]);
    start
}

fn java(file: &str, around: &Surroundings) -> Start {
    let store = text(&around.trust.join("truststore.p12"));
    let mut options = vec![
        format!("-Djavax.net.ssl.trustStore={store}"),
        "-Djavax.net.ssl.trustStorePassword=changeit".to_owned(),
    ];
    if let Some(proxy) = around.proxy {
        options.push(format!("-Dhttps.proxyHost={}", proxy.ip()));
        options.push(format!("-Dhttps.proxyPort={}", proxy.port()));
    }
    let mut start = start("java", file);
    start.line.splice(1..1, options);
    start
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where the clients stand.
pub fn clients() -> PathBuf {
    root().join("tests/clients")
}

/// The Python that has the pinned packages.
pub fn venv_python() -> String {
    let python = root().join(".testbed/venv/bin/python");
    assert!(
        python.exists(),
        "no {}: run scripts/test-deps.sh",
        python.display()
    );
    text(&python)
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Lets a client pay and reads its line, or says why there is none.
pub async fn pay(mut command: Command, url: &str, body: &str) -> Result<Value, String> {
    // What this process inherited must not choose the way.
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"] {
        let lower = name.to_ascii_lowercase();
        for name in [name, &lower] {
            if !command.get_envs().any(|(set, _)| set == name) {
                command.env_remove(name);
            }
        }
    }
    command
        .env("URL", url)
        .env("BODY", body)
        .env("LC_ALL", "C.UTF-8");
    let output = tokio::process::Command::from(command)
        .output()
        .await
        .unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}")))
}

/// Asks the official SDK's own functions; one JSON line a question.
pub fn ask_sdk(questions: &[Value]) -> Vec<Value> {
    let mut child = Command::new(venv_python())
        .arg(clients().join("sdk_agreement.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let lines: String = questions
        .iter()
        .map(|question| format!("{question}\n"))
        .collect();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), questions.len());
    answers
}
