//! From when until when a certificate holds: [`Validity`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, prelude::FromDer, time::ASN1Time};

use crate::plan::Moment;

/// From when until when a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Not before.
    pub from: Moment,
    /// Not after.
    pub until: Moment,
}

impl Validity {
    /// How much sooner than now a new certificate begins to hold: the clocks of nodes may be behind.
    pub const LEAD: Duration = Duration::from_hours(1);

    /// From a little before now, for that many days.
    pub fn days(days: u32) -> Self {
        // Certificates know whole seconds.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = UNIX_EPOCH + Duration::from_secs(now.as_secs());
        Self { from: (now - Self::LEAD).into(), until: (now + Duration::from_hours(24) * days).into() }
    }

    /// That of a certificate; `None` if it cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let moment = |time: ASN1Time| {
            let since = Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default());
            Moment::from(UNIX_EPOCH + since)
        };
        let validity = certificate.validity();
        Some(Self { from: moment(validity.not_before), until: moment(validity.not_after) })
    }

    /// Whether it is over by now.
    pub fn is_over(&self) -> bool {
        self.left().is_none()
    }

    /// How long it still holds; `None`: no longer.
    pub fn left(&self) -> Option<Duration> {
        self.until.since(SystemTime::now().into())
    }
}
