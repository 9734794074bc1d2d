//! Certificates and keys as PEM files (RFC 7468).

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, Mode, OFlags};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use webpki::{EndEntityCert, KeyUsage};

/// The largest file; all roots of a system are a quarter of a MiB.
const MAX_FILE: u64 = 4 << 20;

/// Where a certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPairFiles {
    /// The certificate first, then those that lead to its root; PEM.
    pub chain: PathBuf,
    /// PKCS#8, PKCS#1 or SEC1, without a passphrase; PEM. May be the same file as the chain.
    pub key: PathBuf,
}

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{}: no such file", .0.display())]
    Missing(PathBuf),
    #[error("{}: can't be read: {cause}", .path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("{}: not a regular file", .0.display())]
    NotRegular(PathBuf),
    #[error("{}: larger than {} MiB", .0.display(), MAX_FILE >> 20)]
    TooLarge(PathBuf),
    #[error("{}: not PEM", .path.display())]
    Pem {
        path: PathBuf,
        #[source]
        cause: pem::Error,
    },
    #[error("{}: no certificate in it (PEM)", .0.display())]
    NoCertificate(PathBuf),
    #[error("{}: a certificate in it can't be used: {cause}", .path.display())]
    Certificate {
        path: PathBuf,
        #[source]
        cause: webpki::Error,
    },
    #[error("{}: the certificate names no hosts, and neither do the settings", .0.display())]
    NoNames(PathBuf),
    #[error("{}: no private key in it (PEM)", .0.display())]
    NoKey(PathBuf),
    #[error("{}: the private key has a passphrase; give it without", .0.display())]
    Encrypted(PathBuf),
    #[error("{}: the private key can't be used: {cause}", .path.display())]
    Key {
        path: PathBuf,
        #[source]
        cause: rustls::Error,
    },
    #[error("{}: the key does not belong to the first certificate in {}", .key.display(), .chain.display())]
    ForeignKey { key: PathBuf, chain: PathBuf },
    #[error("{}: no certificate in it can be a root", .0.display())]
    NoRoot(PathBuf),
}

/// A file's bytes.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let unreadable = |cause: io::Error| match cause.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FileError::Missing(path.to_owned()),
        _ => FileError::Unreadable { path: path.to_owned(), cause },
    };
    // Without waiting for the other end of a FIFO.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| unreadable(errno.into()))?;
    let stat = rustix::fs::fstat(&file).map_err(|errno| unreadable(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(FileError::NotRegular(path.to_owned()));
    }
    let mut bytes = Vec::new();
    File::from(file).take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    match bytes.len() as u64 > MAX_FILE {
        true => Err(FileError::TooLarge(path.to_owned())),
        false => Ok(bytes),
    }
}

/// All certificates of a file, at least one.
pub fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match parsed {
        Ok(all) if all.is_empty() => Err(FileError::NoCertificate(path.to_owned())),
        Ok(all) => Ok(all),
        Err(cause) => Err(FileError::Pem { path: path.to_owned(), cause }),
    }
}

/// The first private key of a file.
fn key(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|cause| {
        // `BEGIN ENCRYPTED PRIVATE KEY`, or a line `Proc-Type: 4,ENCRYPTED` that is no PEM any more.
        if bytes.windows(9).any(|word| word == b"ENCRYPTED") {
            return FileError::Encrypted(path.to_owned());
        }
        match cause {
            pem::Error::NoItemsFound => FileError::NoKey(path.to_owned()),
            cause => FileError::Pem { path: path.to_owned(), cause },
        }
    })
}

/// A certificate with its key, ready to sign.
#[derive(Debug, Clone)]
pub struct KeyPair {
    pub certified: Arc<CertifiedKey>,
    /// The DNS names in the certificate, in lower case; a wildcard is `*.` and the rest.
    pub names: Vec<String>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

impl KeyPair {
    /// Made of what is in the two files.
    pub fn new(files: &KeyPairFiles, chain: &[u8], key: &[u8], provider: &CryptoProvider) -> Result<Self, FileError> {
        let KeyPairFiles { chain: chain_path, key: key_path } = files;
        let chain = certificates(chain_path, chain)?;
        let unusable = |cause| FileError::Certificate { path: chain_path.clone(), cause };
        let leaf = EndEntityCert::try_from(&chain[0]).map_err(unusable)?;
        let names = leaf.valid_dns_names().map(str::to_ascii_lowercase).collect();
        let (not_before, not_after) = validity(&leaf).map_err(unusable)?;
        let key = self::key(key_path, key)?;
        let unusable = |cause| FileError::Key { path: key_path.clone(), cause };
        let key = provider.key_provider.load_private_key(key).map_err(unusable)?;
        let belongs = key.public_key().is_some_and(|public| public == leaf.subject_public_key_info());
        if !belongs {
            return Err(FileError::ForeignKey { key: key_path.clone(), chain: chain_path.clone() });
        }
        Ok(Self { certified: Arc::new(CertifiedKey::new(chain, key)), names, not_before, not_after })
    }

    /// Logs that the pair is in use, with a warning if its peers will refuse it.
    pub fn announce(&self, files: &KeyPairFiles) {
        let now = SystemTime::now();
        let chain = files.chain.display();
        let (from, to) = (httpdate::HttpDate::from(self.not_before), httpdate::HttpDate::from(self.not_after));
        if now < self.not_before {
            tracing::warn!(%chain, valid_from = %from, "a certificate is not valid yet");
        } else if now > self.not_after {
            tracing::warn!(%chain, valid_to = %to, "a certificate has expired");
        } else {
            tracing::info!(%chain, valid_to = %to, names = %self.names.join(" "), "a certificate is in use");
        }
    }
}

/// From when to when a certificate is valid. The library tells neither; its check of the time comes before all
/// others, and its refusals tell both.
fn validity(leaf: &EndEntityCert) -> Result<(SystemTime, SystemTime), webpki::Error> {
    let refusal = |time| {
        let time = UnixTime::since_unix_epoch(time);
        leaf.verify_for_usage(&[], &[], &[], time, KeyUsage::server_auth(), None, None).err()
    };
    let time = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
    let not_before = match refusal(Duration::ZERO) {
        Some(webpki::Error::CertNotValidYet { not_before, .. }) => time(not_before.as_secs()),
        _ => SystemTime::UNIX_EPOCH,
    };
    match refusal(Duration::MAX) {
        Some(webpki::Error::CertExpired { not_after, .. }) => Ok((not_before, time(not_after.as_secs()))),
        error => Err(error.unwrap_or(webpki::Error::BadDerTime)),
    }
}

#[cfg(test)]
mod tests;
