//! The webhook's certificate where nobody else makes one: kept in a Secret that all replicas share, renewed in
//! time, and vouched for by the `caBundle` of the webhook configuration.
//!
//! Looks at both on an interval and puts right what is not: whoever installs a chart again takes the bundle away.
//! A certificate is shown only when the bundle with its CA is written, and a new CA is in the bundle long before it
//! signs. Refuses to touch a Secret without its label, webhooks of other services, and to stop serving
//! because the API server is away. Started by `app`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prometheus::IntGauge;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use super::cluster::{Cluster, ClusterError, Object};
use crate::ca::certificate::IssueError;
use crate::ca::service::{Due, Kept};
use crate::clock::{Clock, written};
use crate::net::drain::{Drain, Phase};
use crate::net::handshake::Tls;
use crate::net::tls::{self, TlsError};

/// The label of a Secret that may be written; its value is the service's name.
pub const LABEL: &str = "countersign.dev/injector";
/// What is needed of the Secret.
const ITEMS: [&str; 4] = ["ca.crt", "ca.key", "tls.crt", "tls.key"];
/// A new CA, its certificate, and twice as many replicas that were faster.
const ROUNDS: usize = 6;
/// How long the first pause after a failure is; the next ones double up to the interval.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What is kept where.
#[derive(Clone, Debug)]
pub struct Config {
    /// The namespace of the Secret and of the service.
    pub namespace: String,
    /// The Secret.
    pub secret: String,
    /// The `MutatingWebhookConfiguration`.
    pub webhook: String,
    /// The service by which the API server reaches the injector.
    pub service: String,
    /// How often both are looked at.
    pub interval: Duration,
}

/// Looks after the certificate.
#[derive(Debug)]
pub struct Keeper {
    config: Config,
    cluster: Cluster,
    clock: Clock,
    tls: Tls,
    /// Why there is nothing to show yet.
    waiting: watch::Sender<Option<String>>,
    expiry: IntGauge,
    synced: IntGauge,
    shown: Option<Kept>,
    /// The problem that was last told, so that it is told once.
    told: Option<String>,
}

/// Why not all is as it should be.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(
        "Secret {0}/{1} has no label {LABEL}={2}, so it may be somebody else's and is left alone; name another one \
         (--secret), delete it, or label it"
    )]
    NotOurs(String, String, String),
    #[error("there is no MutatingWebhookConfiguration {0}, so nobody asks the injector; create it")]
    NoWebhook(String),
    #[error(
        "MutatingWebhookConfiguration {0} has no webhook whose service is {1}/{2}; correct it or --service"
    )]
    OtherService(String, String, String),
    #[error("cannot make a certificate: {0}")]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("tls.crt and tls.key are no PEM")]
    Pem,
}

impl Config {
    /// The names the service has in a cluster whose domain is the usual one; the API server uses the third.
    pub fn names(&self) -> Vec<String> {
        let (service, namespace) = (&self.service, &self.namespace);
        vec![
            service.clone(),
            format!("{service}.{namespace}"),
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
        ]
    }

    fn secret(&self) -> Object {
        Object::Secret(self.namespace.clone(), self.secret.clone())
    }

    fn webhook(&self) -> Object {
        Object::Webhook(self.webhook.clone())
    }
}

impl Keeper {
    /// Somebody who has looked at nothing yet; `tls` shows what is kept.
    pub fn new(config: Config, cluster: Cluster, clock: Clock, tls: Tls) -> Self {
        let metrics = &cluster.metrics;
        let why = "there is no certificate yet: the API server was not asked";
        Self {
            expiry: metrics.certificate_expiry.with_label_values(&["injector"]),
            synced: metrics.cluster_synced.with_label_values::<&str>(&[]),
            config,
            cluster,
            clock,
            tls,
            waiting: watch::Sender::new(Some(why.to_owned())),
            shown: None,
            told: None,
        }
    }

    /// Why there is nothing to show yet; nothing when there is.
    pub fn waiting(&self) -> watch::Receiver<Option<String>> {
        self.waiting.subscribe()
    }

    /// Looks after it until the drain closes.
    pub async fn run(mut self, drain: Drain) {
        let mut pause = FIRST_PAUSE.min(self.config.interval);
        loop {
            let looking = async {
                let now = self.clock.now();
                match self.synchronize().await {
                    Ok(()) => {
                        self.all_is_well(now);
                        pause = FIRST_PAUSE.min(self.config.interval);
                        sleep(self.config.interval).await;
                    }
                    Err(problem) => {
                        self.tell(&problem, pause);
                        sleep(pause).await;
                        pause = (pause * 2).min(self.config.interval);
                    }
                }
            };
            tokio::select! {
                () = drain.reached(Phase::Closing) => return,
                () = looking => {}
            }
        }
    }

    /// Puts everything right, one step a round; whoever was faster is read again.
    async fn synchronize(&mut self) -> Result<(), Problem> {
        let mut last = None;
        for _ in 0..ROUNDS {
            match self.step().await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(Problem::Cluster(ClusterError::Conflict(object))) => last = Some(object),
                Err(problem) => return Err(problem),
            }
        }
        let busy = last.unwrap_or_else(|| self.config.secret());
        Err(ClusterError::Conflict(busy).into())
    }

    /// Reads both objects and does what is due first. Returns whether nothing was.
    async fn step(&mut self) -> Result<bool, Problem> {
        let (kept, is_last) = self.keep().await?;
        let vouched = self.vouch(&kept).await;
        let same = |shown: &Kept| shown.authorities == kept.authorities;
        // Without the bundle another CA's certificate would be refused; the first one has nothing to lose.
        if vouched.is_ok() || self.shown.as_ref().is_none_or(same) {
            self.show(kept)?;
        }
        vouched.map(|()| is_last)
    }

    /// The Secret as it should be, and whether it was.
    async fn keep(&mut self) -> Result<(Kept, bool), Problem> {
        let (names, object) = (self.config.names(), self.config.secret());
        let secret = self.cluster.read(&object).await?;
        let now = self.clock.now();
        let Some(mut secret) = secret else {
            let kept = match &self.shown {
                Some(shown) => shown.clone(),
                None => Kept::make(&names, now)?,
            };
            let secret = self.new_secret(&kept);
            self.cluster.create(&object, &secret).await?;
            let again = self.shown.is_some().then_some(true);
            info!(secret = %object, again, "Secret with CA and certificate made");
            return Ok((kept, false));
        };
        let label = secret
            .pointer("/metadata/labels")
            .and_then(|labels| labels.get(LABEL));
        if label.and_then(Value::as_str) != Some(&self.config.service) {
            let Config {
                namespace,
                secret,
                service,
                ..
            } = self.config.clone();
            return Err(Problem::NotOurs(namespace, secret, service));
        }
        let kept = read(&secret);
        let due = kept.due(&names, now);
        let (what, why) = match &due {
            Due::Nothing(_) => return Ok((kept, true)),
            Due::Certificate(why) => ("certificate", why),
            Due::Authority(why) => ("CA", why),
            Due::Both(why) => ("CA and certificate", why),
        };
        if self.shown.is_none() && kept.end(&names, now).is_some() {
            // Whatever becomes of the renewal, this one serves.
            self.show(kept.clone())?;
        }
        let kept = kept.renewed(&due, &names, now)?;
        write(&mut secret, &kept);
        self.cluster.replace(&object, &secret).await?;
        info!(secret = %object, what, why, "renewed");
        // A new CA signs from the next look on: API servers hear of the bundle when they do.
        Ok((kept, matches!(due, Due::Authority(_))))
    }

    /// Sees to it that the API server trusts the CAs.
    async fn vouch(&self, kept: &Kept) -> Result<(), Problem> {
        let Config {
            namespace,
            webhook,
            service,
            ..
        } = &self.config;
        let object = self.config.webhook();
        let Some(mut value) = self.cluster.read(&object).await? else {
            return Err(Problem::NoWebhook(webhook.clone()));
        };
        let bundle = Value::String(STANDARD.encode(&kept.authorities));
        let hooks = value.get_mut("webhooks").and_then(Value::as_array_mut);
        let (mut ours, mut missing) = (0, 0);
        for client in hooks
            .into_iter()
            .flatten()
            .filter_map(|hook| hook.get_mut("clientConfig"))
        {
            let is =
                |path: &str, name: &str| client.pointer(path).and_then(Value::as_str) == Some(name);
            if !is("/service/name", service) || !is("/service/namespace", namespace) {
                continue;
            }
            ours += 1;
            if client.get("caBundle") != Some(&bundle)
                && let Some(client) = client.as_object_mut()
            {
                client.insert("caBundle".to_owned(), bundle.clone());
                missing += 1;
            }
        }
        if ours == 0 {
            let names = (webhook.clone(), namespace.clone(), service.clone());
            return Err(Problem::OtherService(names.0, names.1, names.2));
        }
        if missing > 0 {
            self.cluster.replace(&object, &value).await?;
            info!(webhook, webhooks = missing, "caBundle written");
        }
        Ok(())
    }

    /// Shows a certificate from now on.
    fn show(&mut self, kept: Kept) -> Result<(), Problem> {
        let is_new = |shown: &Kept| shown.certificate != kept.certificate;
        if self.shown.as_ref().is_none_or(is_new) {
            let chain: Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(&kept.certificate).collect();
            let chain = chain.map_err(|_no_pem| Problem::Pem)?;
            let key = PrivateKeyDer::from_pem_slice(&kept.key).map_err(|_no_pem| Problem::Pem)?;
            self.tls.replace(tls::server(chain, key, &PROTOCOLS)?);
            if let Some(end) = kept.end(&self.config.names(), self.clock.now()) {
                self.expiry.set(seconds(end));
                let until = written(end);
                info!(%until, "certificate in use");
            }
            self.waiting.send_replace(None);
        }
        self.shown = Some(kept);
        Ok(())
    }

    fn new_secret(&self, kept: &Kept) -> Value {
        let Config {
            namespace,
            secret,
            service,
            ..
        } = &self.config;
        let labels = json!({ LABEL: service });
        let mut value = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": { "name": secret, "namespace": namespace, "labels": labels },
        });
        write(&mut value, kept);
        value
    }

    fn all_is_well(&mut self, at: SystemTime) {
        self.synced.set(seconds(at));
        if self.told.take().is_some() {
            info!("Secret and webhook configuration are as they should be again");
        }
    }

    /// Once for each problem: it may stay for hours.
    fn tell(&mut self, problem: &Problem, pause: Duration) {
        let reason = problem.to_string();
        if self.shown.is_none() {
            let why = format!("there is no certificate yet: {reason}");
            self.waiting.send_replace(Some(why));
        }
        let again = humantime::format_duration(pause);
        if self.told.as_ref() == Some(&reason) {
            debug!(reason, %again, "certificate not looked after");
        } else if self.shown.is_some() {
            warn!(reason, %again, "certificate not looked after; the one in use stays");
        } else {
            warn!(reason, %again, "there is no certificate to serve with");
        }
        self.told = Some(reason);
    }
}

/// What the Secret holds; an item that is missing or no base64 is empty.
fn read(secret: &Value) -> Kept {
    let items = ITEMS.map(|item| {
        let text = secret.get("data").and_then(|data| data.get(item)?.as_str());
        STANDARD
            .decode(text.unwrap_or_default())
            .unwrap_or_default()
    });
    let [authorities, authority_key, certificate, key] = items;
    Kept {
        authorities,
        authority_key: Zeroizing::new(authority_key),
        certificate,
        key: Zeroizing::new(key),
    }
}

/// Puts it into the Secret; what else is in there stays.
fn write(secret: &mut Value, kept: &Kept) {
    let values = [
        &kept.authorities,
        &*kept.authority_key,
        &kept.certificate,
        &*kept.key,
    ];
    let Some(fields) = secret.as_object_mut() else {
        return;
    };
    let data = fields.entry("data").or_insert_with(|| json!({}));
    if !data.is_object() {
        *data = json!({});
    }
    if let Some(data) = data.as_object_mut() {
        for (item, value) in ITEMS.into_iter().zip(values) {
            data.insert(item.to_owned(), Value::String(STANDARD.encode(value)));
        }
    }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
