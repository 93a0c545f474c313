//! Who is calling, and what they may read and publish.
//!
//! An [`Identity`] exists only after its credential was checked, so whoever holds one need not ask
//! again. It answers from its claims alone: no database, no clock.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use crate::topic::{Pattern, Topic};

/// A caller. Cloning is a pointer.
#[derive(Clone)]
pub struct Identity(Arc<Caller>);

pub(super) struct Caller {
    pub(super) credential: Credential,
    pub(super) sub: Option<Box<str>>,
    pub(super) tenant: Option<Box<str>>,
    /// The own topic; present exactly when `sub` is.
    pub(super) own: Option<Topic>,
    pub(super) read: Vec<Pattern>,
    pub(super) publish: Vec<Pattern>,
    pub(super) public: Arc<[Pattern]>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) claims: Box<str>,
}

/// By what a caller was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// No credential: a reader of public topics.
    Anonymous,
    /// A token in the `Authorization` header.
    Bearer,
    /// A ticket in the URL.
    Ticket,
    /// A token in a cookie.
    Cookie,
}

impl Identity {
    /// A caller without a credential, who may read what is public and nothing else.
    pub fn anonymous(public: Arc<[Pattern]>) -> Identity {
        Identity::new(Caller {
            credential: Credential::Anonymous,
            sub: None,
            tenant: None,
            own: None,
            read: Vec::new(),
            publish: Vec::new(),
            public,
            expires_at: None,
            claims: Box::from("{}"),
        })
    }

    pub(super) fn new(caller: Caller) -> Identity {
        Identity(Arc::new(caller))
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.0
    }

    /// The topic that is this caller's own; nobody's when anonymous.
    pub fn own_topic(&self) -> Option<&Topic> {
        self.0.own.as_ref()
    }

    /// Whether the caller may read a topic: its own, one of its patterns inside its tenant, or a
    /// public one, which everybody may read.
    pub fn may_read(&self, topic: &Topic) -> bool {
        self.0.own.as_ref() == Some(topic)
            || self.covers(&self.0.read, topic)
            || self.0.public.iter().any(|pattern| pattern.covers(topic))
    }

    /// Whether the caller may publish to a topic. Owning a topic does not include that.
    pub fn may_publish(&self, topic: &Topic) -> bool {
        self.covers(&self.0.publish, topic)
    }

    /// Whether there is any topic that the caller may publish to.
    pub fn publishes(&self) -> bool {
        !self.0.publish.is_empty()
    }

    fn covers(&self, patterns: &[Pattern], topic: &Topic) -> bool {
        let tenant = self.0.tenant.as_deref();
        tenant.is_none_or(|tenant| topic.belongs_to(tenant))
            && patterns.iter().any(|pattern| pattern.covers(topic))
    }

    /// The key of per-user limits, distinct across tenants; `None` when anonymous.
    pub fn user(&self) -> Option<&str> {
        self.0.own.as_ref().map(Topic::as_str)
    }

    /// The tenant that the caller is confined to.
    pub fn tenant(&self) -> Option<&str> {
        self.0.tenant.as_deref()
    }

    /// When streams of this caller end, which is the `exp` of its token. A token within the leeway
    /// for clocks may be past it already; such a stream ends at once.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.0.expires_at
    }

    /// The claims as JSON text, for `request.jwt.claims`; `{}` when anonymous.
    pub fn claims(&self) -> &str {
        &self.0.claims
    }

    /// By what the caller was recognised.
    pub fn credential(&self) -> Credential {
        self.0.credential
    }
}

/// Claims may hold personal data, so that a log line of an identity shows none of them.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("credential", &self.0.credential)
            .field("own", &self.0.own)
            .finish_non_exhaustive()
    }
}
