//! Signs requests to S3 by HMAC-SHA-256. Without this, the object store's crate would
//! need a cryptographic library of its own.

use hmac::{Hmac, KeyInit, Mac};
use object_store::client::{
    CryptoProvider, DigestAlgorithm, DigestContext, HmacContext, Signer, SigningAlgorithm,
};
use object_store::{Error, Result};
use sha2::{Digest, Sha256};

/// The digests and signatures that S3 needs.
#[derive(Debug)]
pub struct Signatures;

impl CryptoProvider for Signatures {
    fn digest(&self, algorithm: DigestAlgorithm) -> Result<Box<dyn DigestContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => Ok(Box::new(Sum {
                state: Sha256::new(),
                sum: [0; 32],
            })),
            other => Err(unsupported(&other)),
        }
    }

    fn hmac(&self, algorithm: DigestAlgorithm, secret: &[u8]) -> Result<Box<dyn HmacContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => Ok(Box::new(Sum {
                state: Hmac::<Sha256>::new_from_slice(secret)
                    .map_err(|_| unsupported(&secret.len()))?,
                sum: [0; 32],
            })),
            other => Err(unsupported(&other)),
        }
    }

    /// S3 does not sign with keys of this kind.
    fn sign(&self, algorithm: SigningAlgorithm, _pem: &[u8]) -> Result<Box<dyn Signer>> {
        Err(unsupported(&algorithm))
    }
}

fn unsupported(what: &dyn std::fmt::Debug) -> Error {
    Error::NotSupported {
        source: format!("requests cannot be signed with {what:?}").into(),
    }
}

/// A sum that is being added up.
struct Sum<S> {
    state: S,
    sum: [u8; 32],
}

impl DigestContext for Sum<Sha256> {
    fn update(&mut self, data: &[u8]) {
        self.state.update(data);
    }

    fn finish(&mut self) -> Result<&[u8]> {
        self.sum = self.state.finalize_reset().into();
        Ok(&self.sum)
    }
}

impl HmacContext for Sum<Hmac<Sha256>> {
    fn update(&mut self, data: &[u8]) {
        self.state.update(data);
    }

    fn finish(&mut self) -> Result<&[u8]> {
        self.sum = self.state.clone().finalize().into_bytes().into();
        Ok(&self.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// RFC 6234.
    #[test]
    fn a_digest_is_that_of_the_standard() {
        let mut digest = Signatures
            .digest(DigestAlgorithm::Sha256)
            .expect("it is known");
        digest.update(b"a");
        digest.update(b"bc");
        assert_eq!(
            hex(digest.finish().expect("a digest")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    /// RFC 4231, test case 2.
    #[test]
    fn a_signature_is_that_of_the_standard() {
        let hmac = Signatures.hmac(DigestAlgorithm::Sha256, b"Jefe");
        let mut hmac = hmac.expect("it is known");
        hmac.update(b"what do ya want ");
        hmac.update(b"for nothing?");
        assert_eq!(
            hex(hmac.finish().expect("a signature")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
