//! Reads and computes the validity of certificates: [`Validity`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, prelude::FromDer, time::ASN1Time};

use crate::plan::Moment;

/// The period in which a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The certificate is not valid before this time.
    pub from: Moment,
    /// The certificate is not valid after this time.
    pub until: Moment,
}

impl Validity {
    /// New certificates are valid from one hour ago, because the clocks of nodes may be behind.
    pub const LEAD: Duration = Duration::from_hours(1);

    /// The validity from [`Self::LEAD`] ago until `days` from now.
    pub fn days(days: u32) -> Self {
        // The times in certificates are whole seconds.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = UNIX_EPOCH + Duration::from_secs(now.as_secs());
        Self { from: (now - Self::LEAD).into(), until: (now + Duration::from_hours(24) * days).into() }
    }

    /// The validity of a certificate. `None`: the certificate is malformed.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let moment = |time: ASN1Time| {
            let since = Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default());
            Moment::from(UNIX_EPOCH + since)
        };
        let validity = certificate.validity();
        Some(Self { from: moment(validity.not_before), until: moment(validity.not_after) })
    }

    /// The time that is left. `None`: expired.
    pub fn left(&self) -> Option<Duration> {
        self.until.since(SystemTime::now().into())
    }
}
