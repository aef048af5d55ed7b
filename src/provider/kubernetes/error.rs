//! What went wrong with a cluster, in words: what was tried, on which cluster, with which object, why it failed, and how to
//! mend it. No secret is in it: what programs of credential plugins print, and bodies that are no answers, are left out.

use super::status::Status;
use crate::model::ObjectRef;
use crate::provider::ActError;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// Sorts of faults, by what is to be done about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// How the cluster is reached is wrong, or not allowed: nothing was sent.
    Access,
    /// No connection: refused, no such name, no route, broken off.
    Connection,
    /// A connection whose other end is not who it should be, or cannot prove it.
    Tls,
    /// No answer in time.
    Timeout,
    /// It failed a few times in a row and is left alone for a while.
    Resting,
    /// Who asks is not known, or not any more (401).
    Unauthorized,
    /// Who asks may not (403).
    Forbidden,
    /// An admission webhook or policy does not let it through.
    Admission,
    /// It is not there (404).
    NotFound,
    /// The kind is not served.
    NotServed,
    /// It is there already (409).
    AlreadyExists,
    /// Somebody else wrote in between, or has set the fields (409).
    Conflict,
    /// What is read on from is too old (410).
    Gone,
    /// What was sent is not accepted (400, 422).
    Invalid,
    /// Too much is asked of it (429).
    TooMany,
    /// It has a fault of its own (5xx).
    Server,
    /// What came back is no answer of an API server.
    BadAnswer,
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The cluster.
    pub cluster: Box<str>,
    /// What was tried: `list Subscription`.
    pub during: Box<str>,
    /// The object, where it is about one.
    pub object: Option<Box<ObjectRef>>,
    /// What sort of fault it is.
    pub kind: FaultKind,
    /// Why, in the words of whoever refused.
    pub why: String,
    /// What to do.
    pub hint: Option<String>,
    /// How long to wait before it is tried again, where the server says.
    pub after: Option<Duration>,
    /// What the server said, where it was the server.
    pub status: Option<Box<Status>>,
}

impl Fault {
    pub(super) fn new(cluster: &str, during: impl Into<Box<str>>, kind: FaultKind, why: impl Into<String>) -> Self {
        let (cluster, during, why) = (cluster.into(), during.into(), why.into());
        let hint = explain(&why).map(str::to_owned);
        Self { cluster, during, object: None, kind, why, hint, after: None, status: None }
    }

    pub(super) fn of(mut self, object: Option<&ObjectRef>) -> Self {
        self.object = object.map(|o| Box::new(o.clone()));
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether it may go better later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        use FaultKind as K;
        matches!(
            self.kind,
            K::Connection | K::Timeout | K::Resting | K::Conflict | K::Gone | K::TooMany | K::Server | K::BadAnswer
        )
    }

    /// Whether it says something of the way to the server rather than of what was asked.
    pub(super) fn is_of_the_way(&self) -> bool {
        use FaultKind as K;
        matches!(self.kind, K::Connection | K::Tls | K::Timeout | K::BadAnswer)
    }

    /// What an answer says that is no success.
    pub(super) fn of_status(cluster: &str, during: &str, object: Option<&ObjectRef>, status: Status) -> Self {
        use FaultKind as K;
        let message = status.words();
        let is_admission = ["admission webhook", "ValidatingAdmissionPolicy", "failed calling webhook"]
            .iter()
            .any(|sign| message.contains(sign));
        let kind = match (status.code, status.reason.as_str()) {
            _ if is_admission => K::Admission,
            (401, _) => K::Unauthorized,
            (403, _) => K::Forbidden,
            // Other 404s are somebody else's: a load balancer, a proxy, a path that leads nowhere.
            (404, "NotFound") => K::NotFound,
            (404, _)
                if message.contains("404 page not found")
                    || message.contains("could not find the requested resource") =>
            {
                K::NotFound
            }
            (409, "AlreadyExists") => K::AlreadyExists,
            (409, _) => K::Conflict,
            (410, _) => K::Gone,
            (429, _) => K::TooMany,
            (400..=499, _) => K::Invalid,
            _ => K::Server,
        };
        let mut fault = Self::new(cluster, during, kind, message).of(object);
        let hint = match kind {
            _ if fault.hint.is_some() => None,
            K::Unauthorized => Some(
                "its token or client certificate is not known to the cluster, or not any more: renew the credentials that \
                 the Cluster's manifest names"
                    .to_owned(),
            ),
            K::Forbidden => Some(format!(
                "give Drover's user there the right: `drover rbac cluster {cluster}` prints the role that it needs"
            )),
            K::Admission if status.code >= 500 || fault.why.contains("failed calling webhook") => {
                Some("the cluster's own webhook does not answer: see to the pods behind it".to_owned())
            }
            K::Admission => Some("a rule of the cluster's own: change the manifest, or the rule".to_owned()),
            K::Conflict if status.is_field_conflict() => Some(
                "change the manifest to what is there, have the other manager give the field up, or take it over with \
                 `forceConflicts: true`"
                    .to_owned(),
            ),
            _ => None,
        };
        fault.hint = fault.hint.or(hint);
        fault.status = Some(Box::new(status));
        fault
    }

    /// What the HTTP client says.
    pub(super) fn of_client(cluster: &str, during: &str, object: Option<&ObjectRef>, error: &kube::Error) -> Self {
        let (kind, why) = match error {
            // Its own words may have in them what a credential plugin printed.
            kube::Error::Auth(e) => (FaultKind::Access, auth_words(e)),
            other => {
                let why = chain(other);
                (sort(&why), why)
            }
        };
        let mut fault = Self::new(cluster, during, kind, why).of(object);
        fault.hint = fault.hint.or_else(|| way_hint(kind, &fault.why, cluster));
        fault
    }

    /// As the error of a step.
    pub fn into_act(self) -> ActError {
        let message = self.to_string();
        let error = if self.is_transient() { ActError::transient(message) } else { ActError::permanent(message) };
        match self.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    /// With its hint, for where there is no field for one.
    pub fn in_full(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{self} (hint: {hint})"),
            None => self.to_string(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.object {
            Some(object) => write!(f, "`{}`: {} {object}: {}", self.cluster, self.during, self.why),
            None => write!(f, "`{}`: {}: {}", self.cluster, self.during, self.why),
        }
    }
}

impl StdError for Fault {}

/// A known cause behind a message, of Drover's own requests or in a condition of MTC's objects (migration guide, 3.4.1.3).
pub fn explain(message: &str) -> Option<&'static str> {
    let lower = message.to_ascii_lowercase();
    if lower.contains("upgrade request required") || lower.contains("spdy") && lower.contains("upgrade") {
        return Some(
            "a proxy or firewall between the control cluster and this one does not let SPDY through: MTC's controller runs \
             commands in remote pods with it. Use a proxy that supports SPDY and forwards the `Upgrade` header to the API \
             server (migration guide, 3.4.1.3)",
        );
    }
    None
}

/// All causes of an error, the outermost first, each said once.
fn chain(error: &dyn StdError) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(e) = next {
        let text = e.to_string();
        // Wrappers repeat what they wrap, behind a word of their own.
        if !text.is_empty() {
            let repeats = |outer: &String| outer.ends_with(&text);
            if let Some(outer) = said.last_mut().filter(|o| repeats(o)) {
                let word = outer[..outer.len() - text.len()].trim_end_matches([':', ' ']).to_owned();
                *outer = word;
            }
            said.push(text);
        }
        next = e.source();
    }
    let is_noise = |t: &String| t.is_empty() || t.starts_with("ServiceError") || t.starts_with("HyperError");
    said.retain(|t| !is_noise(t));
    said.join(": ")
}

fn sort(why: &str) -> FaultKind {
    let lower = why.to_ascii_lowercase();
    let has = |signs: &[&str]| signs.iter().any(|s| lower.contains(s));
    // An end that came too early says nothing of who is at the other one.
    if has(&["close_notify", "unexpected eof", "unexpected-eof", "connection reset", "broken pipe"]) {
        FaultKind::Connection
    } else if has(&["certificate", "tls", "handshake", "alert"]) {
        FaultKind::Tls
    } else if has(&["timed out", "timeout", "deadline"]) {
        FaultKind::Timeout
    } else {
        FaultKind::Connection
    }
}

fn way_hint(kind: FaultKind, why: &str, cluster: &str) -> Option<String> {
    let lower = why.to_ascii_lowercase();
    let has = |sign: &str| lower.contains(sign);
    let hint = match kind {
        FaultKind::Tls if has("received fatal alert") && (has("certificateexpired") || has("expired")) => {
            "the client certificate of the credentials ended: renew it".into()
        }
        FaultKind::Tls if has("expired") => {
            "the API server's certificate ended: renew it on the cluster. Where it did not, look at the clock of this machine"
                .into()
        }
        FaultKind::Tls if has("notvalidyet") || has("not valid yet") => {
            "the certificate is not valid yet: look at the clocks of this machine and of the cluster".into()
        }
        FaultKind::Tls if has("notvalidforname") || has("not valid for name") => {
            "the certificate is made for other names: use one of them as the server's address, or give it as `tlsServerName`"
                .into()
        }
        FaultKind::Tls if has("unknownissuer") || has("issuer") => {
            "the CA that signed the API server's certificate is not known here (x509): give it as `ca`, or as \
             `certificate-authority-data` in the kubeconfig"
                .into()
        }
        FaultKind::Tls => "look whether a proxy between here and the cluster breaks TLS, and what the server offers".into(),
        FaultKind::Connection if has("407") || has("proxy authorization") || has("proxy auth") => {
            "the proxy wants a user and a password: give its URL by `proxy.secretRef`".into()
        }
        FaultKind::Connection if has("refused") => {
            format!("nothing listens there: look whether the API server of `{cluster}` runs, and at its address and port")
        }
        FaultKind::Connection if has("dns") || has("lookup") || has("resolve") => {
            "its name is not known here: look at the address, and at the name servers of this machine".into()
        }
        FaultKind::Timeout => {
            "look whether a firewall drops the packets, and whether the API server hangs; `limits.timeout` says how long one \
             request may take"
                .into()
        }
        _ => return None,
    };
    Some(hint)
}

fn auth_words(error: &kube::client::AuthError) -> String {
    use kube::client::AuthError as A;
    match error {
        A::AuthExecStart(e) => format!("the credential plugin of the kubeconfig cannot be started: {e}"),
        A::AuthExecRun { cmd, out, .. } => {
            let program = cmd.split_whitespace().next().unwrap_or_default().trim_matches('"');
            format!("the credential plugin `{program}` of the kubeconfig failed ({})", out.status)
        }
        A::AuthExecParse(_) => "the credential plugin of the kubeconfig printed no credential".into(),
        A::ReadTokenFile(e, path) => format!("the token file `{}` cannot be read: {e}", path.display()),
        A::MissingCommand => "the kubeconfig's `exec` names no command".into(),
        _ => "the credentials cannot be used".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, reason: &str, message: &str) -> Status {
        Status { code, reason: reason.into(), message: message.into(), ..Status::default() }
    }

    fn of(code: u16, reason: &str, message: &str) -> Fault {
        Fault::of_status("ocp4", "list Subscription", None, status(code, reason, message))
    }

    #[test]
    fn unknown_and_not_allowed_are_told_apart() {
        let (unknown, denied) = (of(401, "Unauthorized", "Unauthorized"), of(403, "Forbidden", "cannot list"));
        assert!(unknown.hint.as_ref().unwrap().contains("renew") && !unknown.is_transient(), "{unknown:?}");
        assert!(denied.hint.as_ref().unwrap().contains("drover rbac cluster ocp4"), "{denied:?}");
    }

    #[test]
    fn a_webhook_that_says_no_is_not_one_that_does_not_answer() {
        let no = of(403, "Forbidden", "admission webhook \"x.example.com\" denied the request: no");
        let (bad, silent) = (
            of(400, "", "admission webhook \"x.example.com\" denied the request: no"),
            of(
                500,
                "InternalError",
                "Internal error occurred: failed calling webhook \"x\": context deadline exceeded",
            ),
        );
        for fault in [&no, &bad, &silent] {
            assert_eq!(fault.kind, FaultKind::Admission);
        }
        assert!(no.hint.as_ref().unwrap().contains("rule") && bad.hint == no.hint);
        assert!(silent.hint.as_ref().unwrap().contains("does not answer"), "{silent:?}");
    }

    #[test]
    fn a_proxy_without_spdy_is_recognised_and_explained() {
        for text in ["error: Upgrade request required", "unable to upgrade connection: SPDY not supported"] {
            assert!(explain(text).unwrap().contains("3.4.1.3"), "{text}");
        }
        assert_eq!(explain("connection refused"), None);
        assert!(of(400, "BadRequest", "Upgrade request required").hint.unwrap().contains("`Upgrade` header"));
    }

    #[test]
    fn causes_are_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("connect failed: {0}")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("Connection refused"));
        assert_eq!(chain(&error), "connect failed: Connection refused");
    }

    #[test]
    fn trouble_on_the_way_is_told_apart() {
        for (why, kind, hint) in [
            ("client error (Connect): invalid peer certificate: Expired", FaultKind::Tls, "certificate ended"),
            ("invalid peer certificate: UnknownIssuer", FaultKind::Tls, "x509"),
            ("invalid peer certificate: certificate not valid for name \"x\"", FaultKind::Tls, "tlsServerName"),
            (
                "connection error: peer closed connection without sending TLS close_notify: unexpected-eof",
                FaultKind::Connection,
                "",
            ),
            ("tcp connect error: Connection refused (os error 111)", FaultKind::Connection, "nothing listens"),
            ("dns error: failed to lookup address information", FaultKind::Connection, "name servers"),
        ] {
            assert_eq!(sort(why), kind, "{why}");
            assert!(way_hint(kind, why, "ocp4").unwrap_or_default().contains(hint), "{why}");
        }
    }
}
