//! A pod for real, by podman: what a kubelet does around the containers is done here, as podman does not.
//!
//! It takes the manifest as `countersign inject` writes it. Containers are started in the order of a
//! kubelet: each init container to its end, a sidecar until its startup probe succeeds, then the app. Podman
//! 4.3 needs the manifest a little different, see [`for_podman`]. Everything of a pod is in a temporary
//! folder and in network namespaces of its own, and is removed with it. The pod's nameserver and the
//! gateway are outside of it, where every address is. Needs root, podman, and what `make image` makes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::{Value, json};

use super::netns::{Namespace, succeed};
use super::podman::{Podman, made, root_folder};
use super::process::{PATIENCE, countersign, text};
use super::town::{GATEWAY, Server, serve};

/// The app of the pods, and how their manifests call its image.
const APP: &str = include_str!("../../tools/pod_app.py");
const APP_IMAGE: &str = "legacy:1";
/// Of Debian's Python, what an app needs that speaks https.
const MODULES: &str = "/usr/lib/python3.11";

/// See the file's head.
pub struct Kubelet {
    pub network: Namespace,
    podman: Podman,
    pod: Value,
    _servers: Vec<Server>,
}

impl Kubelet {
    /// A pod of the legacy app with these annotations, injected, made, and not started.
    pub fn new(label: &str, annotations: &[(&str, &str)]) -> Self {
        let network = Namespace::new(label);
        let podman = Podman::inside(&network);
        let servers = outside(&network, &podman);
        let pod = injected(&podman.path("manifest.json"), annotations);
        let kubelet = Self {
            network,
            podman,
            pod,
            _servers: servers,
        };
        kubelet.settle();
        kubelet.make();
        kubelet
    }

    /// The network of the pod, and the images.
    fn settle(&self) {
        self.run(&["network", "create", "--disable-dns", self.network.name()]);
        for image in ["static.tar", "redirect.tar"] {
            self.run(&["load", "--quiet", "--input", text(&made(image))]);
        }
        let root = self.podman.path("app");
        let module = |name| format!("{MODULES}/lib-dynload/{name}.cpython-311-x86_64-linux-gnu.so");
        root_folder(
            &root,
            &["/usr/bin/python3", &module("_ssl"), &module("_hashlib")],
        );
        let modules = root.join("usr/lib");
        succeed(Command::new("cp").args(["-a", MODULES]).arg(modules));
        for unused in ["test", "config-3.11-x86_64-linux-gnu"] {
            fs::remove_dir_all(root.join("usr/lib/python3.11").join(unused)).unwrap();
        }
        fs::write(root.join("app.py"), APP).unwrap();
        self.podman.import(&root, APP_IMAGE);
    }

    /// Makes the pod without starting it.
    fn make(&self) {
        let mut pod = self.pod.clone();
        for_podman(&mut pod, &self.podman.path("keys"));
        let manifest = self.podman.path("pod.json");
        fs::write(&manifest, pod.to_string()).unwrap();
        let network = self.network.name();
        let line = ["kube", "play", "--start=false", "--network", network];
        self.run(&[&line[..], &[text(&manifest)]].concat());
        // Kubernetes makes an emptyDir for everybody to write, podman a volume for root.
        let line = ["volume", "inspect", "countersign-trust", "--format"];
        let trust = self.run(&[&line[..], &["{{.Mountpoint}}"]].concat());
        fs::set_permissions(trust.trim(), fs::Permissions::from_mode(0o777)).unwrap();
        self.set_sysctls();
    }

    /// Sets what the manifest says of the pod's kernel, which podman 4.3 leaves out.
    fn set_sysctls(&self) {
        let line = [
            "pod",
            "inspect",
            "legacy",
            "--format",
            "{{.InfraContainerID}}",
        ];
        let pause = self.run(&line);
        self.run(&["start", pause.trim()]);
        let id = self.run(&["inspect", "--format", "{{.State.Pid}}", pause.trim()]);
        let network = format!("--net=/proc/{}/ns/net", id.trim());
        let sysctls = self.pod["spec"]["securityContext"]["sysctls"].as_array();
        for sysctl in sysctls.into_iter().flatten() {
            let [name, value] = ["name", "value"].map(|key| sysctl[key].as_str().unwrap());
            let file = format!("/proc/sys/{}", name.replace('.', "/"));
            let mut set = Command::new("nsenter");
            set.args([&network, "sh", "-c", "echo \"$0\" >\"$1\"", value, &file]);
            succeed(&mut set);
        }
    }

    /// Runs the init containers that end, one after the other; each must succeed.
    pub fn run_init_containers(&self) {
        for container in containers(&self.pod, "initContainers") {
            if container["restartPolicy"] != "Always" {
                let name = container["name"].as_str().unwrap();
                self.start(name);
                assert_eq!(self.exit(name), 0, "{name}: {}", self.log(name));
            }
        }
    }

    /// Starts the sidecar and asks its startup probe as often as the manifest says, until it succeeds.
    pub fn start_native_sidecar(&self) {
        self.start("countersign");
        let sidecars = containers(&self.pod, "initContainers");
        let sidecar = sidecars.iter().find(|c| c["name"] == "countersign");
        let probe = &sidecar.expect("a native sidecar")["startupProbe"]["httpGet"];
        assert_eq!(probe["port"], "countersign-adm");
        let url = format!("http://127.0.0.1:18449{}", probe["path"].as_str().unwrap());
        let start = Instant::now();
        while !self.inside(&["curl", "-sf", &url]).status.success() {
            let log = || self.log("countersign");
            assert!(start.elapsed() < PATIENCE, "never ready: {}", log());
            assert!(self.inspect("countersign", "{{.State.Running}}") == "true");
        }
    }

    /// Starts the sidecar and does what the manifest has done behind its start, which must succeed.
    pub fn start_classic_sidecar(&self) {
        let first = &containers(&self.pod, "containers")[0];
        assert_eq!(first["name"], "countersign", "the kubelet starts in order");
        self.start("countersign");
        let command = first["lifecycle"]["postStart"]["exec"]["command"].as_array();
        let command = command.expect("a postStart hook");
        let words = command.iter().map(|word| word.as_str().unwrap());
        let name = container("countersign");
        let line: Vec<_> = ["exec", &name].into_iter().chain(words).collect();
        self.run(&line);
    }

    /// Starts a container.
    pub fn start(&self, name: &str) {
        self.run(&["start", &container(name)]);
    }

    /// Sends SIGTERM, and kills after a grace as long as a pod's.
    pub fn stop(&self, name: &str) {
        self.run(&["stop", "--time", "30", &container(name)]);
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str, signal: &str) {
        self.run(&["kill", "--signal", signal, &container(name)]);
    }

    /// Its exit code, which it must have soon.
    pub fn exit(&self, name: &str) -> i32 {
        let code = self.run(&["wait", &container(name)]);
        code.trim().parse().unwrap()
    }

    /// What `podman inspect` says of a container, in this form.
    pub fn inspect(&self, name: &str, form: &str) -> String {
        let container = container(name);
        let said = self.run(&["inspect", "--format", form, &container]);
        said.trim().to_owned()
    }

    /// What a container has said, stdout and stderr.
    pub fn log(&self, name: &str) -> String {
        let mut command = self.podman.command(&["logs", &container(name)]);
        let Output { stdout, stderr, .. } = command.output().unwrap();
        let [out, err] = [stdout, stderr].map(|said| String::from_utf8(said).unwrap());
        // Podman itself misses systemd there.
        let own = err.lines().filter(|line| !line.starts_with("time="));
        own.fold(out, |said, line| said + line + "\n")
    }

    /// Waits for a line of JSON of a container, and gives it.
    pub fn line(&self, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let log = self.log(name);
            let lines = log.lines().filter_map(|l| serde_json::from_str(l).ok());
            if let Some(line) = lines.into_iter().find(&fits) {
                return line;
            }
            let sidecar = || self.log("countersign");
            assert!(
                start.elapsed() < PATIENCE,
                "{name} never said that: {log}\n{}",
                sidecar()
            );
        }
    }

    /// What the kernel says of the container's process: a file or link of its `/proc`.
    pub fn process(&self, name: &str) -> PathBuf {
        let id = self.inspect(name, "{{.State.Pid}}");
        assert_ne!(id, "0", "{name} does not run: {}", self.log(name));
        PathBuf::from("/proc").join(id)
    }

    /// A program of this machine in the pod's network.
    fn inside(&self, line: &[&str]) -> Output {
        let process = self.process("countersign");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", process.join("ns/net").display()));
        command.args(line).output().unwrap()
    }

    fn run(&self, line: &[&str]) -> String {
        self.podman.run(line)
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        // A panic here would hide the test's own.
        for line in [
            &["pod", "rm", "--all", "--force", "--time", "0"][..],
            // Of the locks that all of podman on a machine share, a volume has one until it is removed.
            &["volume", "rm", "--all", "--force"],
            &["network", "rm", "--force", self.network.name()],
        ] {
            let _gone = self.podman.command(line).output();
        }
    }
}

/// The gateway at its address, and the only nameserver, which knows that.
fn outside(network: &Namespace, podman: &Podman) -> Vec<Server> {
    let keys = podman.path("gateway");
    let mut gateway = network.outside(env!("CARGO_BIN_EXE_countersign"));
    gateway.args(["sandbox", "--listen", "[::]:443", "--folder"]);
    let gateway = serve(gateway.arg(&keys), "the simulated gateway listens");
    let mut nameserver = network.outside("sh");
    let known = format!("--address=/open-sea-global.alipayplus.com/{GATEWAY}");
    nameserver.args([
        "-c",
        "exec /usr/sbin/dnsmasq --keep-in-foreground --conf-file=/dev/null --pid-file= --user=root \
         --no-resolv --no-hosts --log-facility=- \"$0\" 2>&1",
        &known,
    ]);
    let nameserver = serve(&mut nameserver, "dnsmasq[");
    // What the pod's Secret holds, as Kubernetes mounts it: root's, and for everybody to read.
    let secret = podman.path("keys");
    fs::create_dir(&secret).unwrap();
    for name in ["partner.pem", "alipayplus.pub.pem", "ca.pem"] {
        fs::copy(keys.join(name), secret.join(name)).unwrap();
        fs::set_permissions(secret.join(name), fs::Permissions::from_mode(0o444)).unwrap();
    }
    vec![gateway, nameserver]
}

/// The pod as `countersign inject` makes it.
fn injected(manifest: &Path, annotations: &[(&str, &str)]) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "legacy", "annotations": {
            "countersign.dev/inject": "enabled", "countersign.dev/keys": "partner-keys",
            "countersign.dev/client-id": "SANDBOX_5X00000000000000",
            "countersign.dev/upstream-ca": "ca.pem",
        } },
        "spec": { "containers": [{
            "name": "app", "image": APP_IMAGE, "command": ["/usr/bin/python3", "/app.py"],
        }] },
    });
    for (name, value) in annotations {
        pod["metadata"]["annotations"][format!("countersign.dev/{name}")] = json!(value);
    }
    fs::write(manifest, pod.to_string()).unwrap();
    let injected = countersign(&["inject", text(manifest)]);
    let pod: Value = serde_json::from_slice(&injected.stdout).unwrap();
    let annotations = &pod["metadata"]["annotations"];
    assert_eq!(annotations["countersign.dev/status"], "injected");
    pod
}

/// What podman 4.3 cannot take, and nothing else.
fn for_podman(pod: &mut Value, secret: &Path) {
    let spec = &mut pod["spec"];
    // It waits for an init container to end, also for one that stays: a native sidecar becomes the first of
    // the containers, which is where a kubelet starts it, too.
    if let Some(inits) = spec["initContainers"].as_array_mut() {
        let (mut stay, end): (Vec<_>, Vec<_>) = inits
            .drain(..)
            .partition(|container| container["restartPolicy"] == "Always");
        *inits = end;
        for sidecar in &mut stay {
            sidecar.as_object_mut().unwrap().remove("restartPolicy");
        }
        let apps = spec["containers"].as_array_mut().unwrap();
        apps.splice(..0, stay);
    }
    // It mounts a Secret with its values still in base64.
    for volume in spec["volumes"].as_array_mut().unwrap() {
        if volume["name"] == "countersign-keys" {
            let folder = json!({ "path": secret, "type": "Directory" });
            *volume = json!({ "name": "countersign-keys", "hostPath": folder });
        }
    }
    // It would start an app anew that ended well.
    spec["restartPolicy"] = json!("Never");
}

/// As podman calls a container of the pod.
fn container(name: &str) -> String {
    format!("legacy-{name}")
}

fn containers<'a>(pod: &'a Value, kind: &str) -> Vec<&'a Value> {
    let list = pod["spec"][kind].as_array();
    list.map(|list| list.iter().collect()).unwrap_or_default()
}
