//! Tests of roles and certificates.

use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use super::*;

fn of(role: Role, hosts: &[&str]) -> CertificateRequest {
    CertificateRequest { role, hosts: hosts.iter().map(ToString::to_string).collect(), validity: Validity::days(1) }
}

fn agent(node: &str) -> Role {
    Role::Agent(node.parse().unwrap())
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn a_role_is_written_as_one_uri_and_read_back() {
    let longest = format!("n{}", "9".repeat(62));
    for role in [Role::Controller, Role::Viewer, agent("n7"), agent("ecotype-7.site_1"), agent(&longest)] {
        assert_eq!(role.to_string().parse(), Ok(role.clone()));
        let certificate = Authority::new(Validity::days(2)).unwrap().issue(&of(role.clone(), &[])).unwrap().certificate;
        assert_eq!(Role::of(&der(&certificate)), Some(role));
    }
    for odd in ["netemctl:", "netemctl:Controller", "netemctl:agent", "netemctl:agent/-", "agent/n1", "https://x"] {
        assert_eq!(odd.parse::<Role>(), Err(()), "{odd}");
    }
}

#[test]
fn a_certificate_has_only_its_role_and_its_names() {
    let authority = Authority::new(Validity::days(2)).unwrap();
    let names = |request: &CertificateRequest| {
        let certificate = der(&authority.issue(request).unwrap().certificate);
        let (_, parsed) = X509Certificate::from_der(&certificate).unwrap();
        let names = parsed.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
        let names: Vec<String> = names
            .iter()
            .map(|name| match name {
                GeneralName::URI(uri) => format!("uri {uri}"),
                GeneralName::DNSName(name) => format!("dns {name}"),
                GeneralName::IPAddress(bytes) => format!("ip {bytes:?}"),
                other => format!("{other:?}"),
            })
            .collect();
        let usage = parsed.extended_key_usage().unwrap().unwrap().value.clone();
        assert!(!parsed.is_ca());
        (names.join(", "), usage.server_auth, usage.client_auth)
    };
    let controller = ("uri netemctl:controller".to_owned(), false, true);
    assert_eq!(names(&of(Role::Controller, &[])), controller);
    let n7 = ("uri netemctl:agent/n7, dns n7, dns n7.example.org, ip [10, 0, 0, 7]".to_owned(), true, false);
    assert_eq!(names(&of(agent("n7"), &["n7.example.org", "10.0.0.7"])), n7);
    let odd = ("uri netemctl:agent/n_7".to_owned(), true, false);
    assert_eq!(names(&of(agent("n_7"), &[])), odd, "not a host name");
}

#[test]
fn no_certificate_outlives_its_ca() {
    let authority = Authority::new(Validity::days(10)).unwrap();
    let reopened = Authority::open(authority.certificate().to_owned(), authority.key().to_owned()).unwrap();
    for authority in [authority, reopened] {
        let long = CertificateRequest { validity: Validity::days(11), ..of(Role::Controller, &[]) };
        assert!(matches!(authority.issue(&long), Err(AuthorityError::Outlives(_))));
        let issued = authority.issue(&CertificateRequest { validity: Validity::days(9), ..long }).unwrap();
        let validity = Validity::of(&der(&issued.certificate)).unwrap();
        let left = validity.left().unwrap();
        assert!(left > Duration::from_hours(9 * 24 - 1) && left <= Duration::from_hours(9 * 24), "{left:?}");
        assert!(validity.from <= SystemTime::now().into(), "a clock that is slightly behind accepts it");
    }
}

#[test]
fn a_certificate_and_the_key_of_another_ca_are_refused() {
    let one = Authority::new(Validity::days(1)).unwrap();
    let nonsense = Authority::open(one.certificate().to_owned(), "nonsense".to_owned());
    assert!(matches!(nonsense, Err(AuthorityError::Unusable(_))));
    let other = Authority::new(Validity::days(1)).unwrap();
    let mixed = Authority::open(one.certificate().to_owned(), other.key().to_owned());
    assert!(matches!(mixed, Err(AuthorityError::Unusable(_))));
}
