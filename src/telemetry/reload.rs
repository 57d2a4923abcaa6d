//! How reloads are counted and shown: what can be loaded anew, and whether it was.
//!
//! Says nothing of why one failed: that is a line of the log. Called by whoever reloads.

use prometheus::IntCounter;

use super::Metrics;

/// What can be loaded anew while the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Certificate, key and client CAs of the ingress listener.
    IngressCertificate,
    /// Certificate and key of the admission webhook.
    InjectorCertificate,
    /// The identities' keys.
    Keys,
    /// The configuration.
    Config,
}

impl Reload {
    /// The label `what`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IngressCertificate => "ingress_certificate",
            Self::InjectorCertificate => "injector_certificate",
            Self::Keys => "keys",
            Self::Config => "config",
        }
    }
}

impl Metrics {
    /// Counts a reload, and shows whether it worked.
    pub fn reloaded(&self, what: Reload, ok: bool) {
        self.reload_ended(what, ok);
        self.reloads_of(what, ok).inc();
    }

    /// Shows whether something could be reloaded; for tries that are not counted, too.
    pub fn reload_ended(&self, what: Reload, ok: bool) {
        let shown = self.last_reload.with_label_values(&[what.as_str()]);
        shown.set(i64::from(ok));
    }

    /// Shows that something can be reloaded and was not yet: an alert on the first failure needs the
    /// zero before it.
    pub fn can_reload(&self, what: Reload) {
        self.reload_ended(what, true);
        for ok in [true, false] {
            self.reloads_of(what, ok).inc_by(0);
        }
    }

    fn reloads_of(&self, what: Reload, ok: bool) -> IntCounter {
        let result = if ok { "ok" } else { "failed" };
        self.reloads.with_label_values(&[what.as_str(), result])
    }
}
