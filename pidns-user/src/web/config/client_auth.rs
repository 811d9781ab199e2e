//! Client certificates: which clients need one, and which authority must have signed it.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, UnixTime},
    server::{
        NoClientAuth, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_cert::{
    Certificate,
    der::Decode as _,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use super::{
    file::{ConfigFault, TlsSection},
    pem::PemOrigin,
};

/// The five policies of Go's crypto/tls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientAuth {
    No,
    Request,
    RequireAny,
    VerifyIfGiven,
    RequireAndVerify,
}

impl ClientAuth {
    pub(super) fn of_file(section: &TlsSection) -> Result<Self, ConfigFault> {
        let Some(value) = &section.client_auth_type else { return Ok(Self::No) };
        match value.value.as_str() {
            "" | "NoClientCert" => Ok(Self::No),
            "RequestClientCert" => Ok(Self::Request),
            // The toolkit has `RequireClientCert` as an old name.
            "RequireAnyClientCert" | "RequireClientCert" => Ok(Self::RequireAny),
            "VerifyClientCertIfGiven" => Ok(Self::VerifyIfGiven),
            "RequireAndVerifyClientCert" => Ok(Self::RequireAndVerify),
            other => Err(ConfigFault::at(
                value,
                format!(
                    "client_auth_type: {other:?} is not a policy; use NoClientCert, RequestClientCert, RequireAnyClientCert, \
                     VerifyClientCertIfGiven or RequireAndVerifyClientCert"
                ),
            )),
        }
    }
}

/// Makes the verifier of client certificates.
pub(super) fn verifier(
    policy: ClientAuth,
    section: &TlsSection,
    client_ca: Option<(Vec<CertificateDer<'static>>, PemOrigin)>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, ConfigFault> {
    let names: BTreeSet<_> =
        section.client_allowed_sans.iter().flatten().map(|name| name.value.clone()).collect();
    if policy == ClientAuth::No {
        const ADVICE: &str = "has no effect without client_auth_type: RequireAndVerifyClientCert";
        if let Some((_, place)) = client_ca {
            return Err(place.wrong(ADVICE));
        }
        return match section.client_allowed_sans.iter().flatten().next() {
            Some(name) => Err(ConfigFault::at(name, format!("client_allowed_sans {ADVICE}"))),
            None => Ok(Arc::new(NoClientAuth)),
        };
    }
    let verifier: Arc<dyn ClientCertVerifier> = match policy {
        ClientAuth::Request | ClientAuth::RequireAny | ClientAuth::No => Arc::new(AnyCertificate {
            is_required: policy == ClientAuth::RequireAny,
            algorithms: provider.signature_verification_algorithms,
        }),
        ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify => {
            let Some((certificates, place)) = client_ca else {
                // Go would accept every certificate that the host's own authorities have signed.
                return Err(ConfigFault::file(
                    "client_auth_type needs client_ca_file (or client_ca): the authority that signs the clients' certificates",
                ));
            };
            let mut roots = RootCertStore::empty();
            for certificate in certificates {
                roots.add(certificate).map_err(|error| place.wrong(format!("cannot use it: {error}")))?;
            }
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
            let builder = match policy {
                ClientAuth::VerifyIfGiven => builder.allow_unauthenticated(),
                _ => builder,
            };
            builder.build().map_err(|error| place.wrong(format!("cannot use it: {error}")))?
        }
    };
    Ok(if section.client_allowed_sans.is_some() {
        Arc::new(AllowedNames { verifier, names })
    } else {
        verifier
    })
}

/// Accepts any certificate whose key the client has.
#[derive(Debug)]
struct AnyCertificate {
    is_required: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// `client_allowed_sans`: accepts verified certificates that have one of these names.
#[derive(Debug)]
struct AllowedNames {
    verifier: Arc<dyn ClientCertVerifier>,
    names: BTreeSet<String>,
}

impl ClientCertVerifier for AllowedNames {
    fn offer_client_auth(&self) -> bool {
        self.verifier.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.verifier.verify_client_cert(end_entity, intermediates, now)?;
        if names_of(end_entity)?.iter().any(|name| self.names.contains(name)) {
            return Ok(verified);
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// The subject alternative names of a certificate: DNS names, mail addresses, IP addresses and URIs.
pub(super) fn names_of(certificate: &CertificateDer<'_>) -> Result<Vec<String>, Error> {
    let malformed = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
    let certificate = Certificate::from_der(certificate).map_err(malformed)?;
    let names = certificate.tbs_certificate().get_extension::<SubjectAltName>().map_err(malformed)?;
    let names = names.map(|(_, names)| names.0).unwrap_or_default();
    let text = |name| match name {
        GeneralName::DnsName(text)
        | GeneralName::Rfc822Name(text)
        | GeneralName::UniformResourceIdentifier(text) => Some(text.to_string()),
        GeneralName::IpAddress(octets) => {
            let octets = octets.as_bytes();
            let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok().map(|ip| ip.to_string())
        }
        _ => None,
    };
    Ok(names.into_iter().filter_map(text).collect())
}
