//! Key and certificate of this host in its fleet.
//!
//! The key is made here and never leaves. The files are root's: the link reads them before it gives up its privileges, and
//! the worker writes for it after that.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustix::fs::{Mode, OFlags, fsync, openat, renameat};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use squall_experiments::fleet::Joined;
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// The directory below the root of all state.
pub const DIRECTORY: &str = "link";
const KEY: &str = "key.pem";
const MEMBERSHIP: &str = "membership.json";
const FENCES: &str = "fences";

/// Whether there is a membership in this directory.
pub fn belongs(directory: &Path) -> bool {
    directory.join(MEMBERSHIP).exists()
}

/// Where key and membership lie.
#[derive(Debug)]
pub struct Vault(OwnedFd);

/// That this host belongs to a fleet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Membership {
    /// As the controller said.
    pub joined: Joined,
    /// When the certificate came: seconds since 1970, by this host's clock.
    pub from: u64,
    /// When it ends.
    pub until: u64,
}

impl Vault {
    /// Opens the directory, and makes it where it is not there, for this process's user alone.
    pub fn open(directory: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(Vault(rustix::fs::open(directory, flags, Mode::empty())?))
    }

    /// The key of this host, made where there is none.
    pub fn key(&self) -> io::Result<KeyPair> {
        if let Some(text) = self.read(KEY)? {
            return KeyPair::from_pem(&text).map_err(io::Error::other);
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(io::Error::other)?;
        self.write(KEY, &key.serialize_pem())?;
        Ok(key)
    }

    /// The membership, where there is one.
    pub fn membership(&self) -> io::Result<Option<Membership>> {
        let Some(text) = self.read(MEMBERSHIP)? else { return Ok(None) };
        Ok(Some(serde_json::from_str(&text)?))
    }

    /// Keeps a membership in place of the one before. An error leaves that one.
    pub fn keep(&self, membership: &Membership) -> io::Result<()> {
        self.write(MEMBERSHIP, &serde_json::to_string(membership)?)
    }

    /// Which controllers are fenced off, as it was kept; `None` where nothing was.
    pub fn fences(&self) -> io::Result<Option<String>> {
        self.read(FENCES)
    }

    /// Keeps it in place of what was before. An error leaves that.
    pub fn keep_fences(&self, text: &str) -> io::Result<()> {
        self.write(FENCES, text)
    }

    fn read(&self, name: &str) -> io::Result<Option<String>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut text = String::new();
        match openat(&self.0, name, flags, Mode::empty()) {
            Ok(file) => File::from(file).read_to_string(&mut text).map(|_| Some(text)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a file for its owner alone, whole or not at all.
    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let draft = format!(".{name}.new");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut file = File::from(openat(&self.0, &draft, flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        renameat(&self.0, &draft, &self.0, name)?;
        Ok(fsync(&self.0)?)
    }
}

impl Membership {
    /// Of what the controller said just now.
    pub fn new(joined: Joined) -> io::Result<Self> {
        let until = ends(&joined.certificate);
        let until = until.ok_or_else(|| io::Error::other("the certificate is not understood"))?;
        Ok(Membership { joined, from: now(), until })
    }

    /// Whether its certificate is not over.
    pub fn is_good(&self) -> bool {
        self.until > now()
    }

    /// Whether two thirds of the certificate's life are over.
    pub fn is_to_be_renewed(&self) -> bool {
        now() >= self.from + self.until.saturating_sub(self.from) * 2 / 3
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

fn ends(certificate: &str) -> Option<u64> {
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).ok()?;
    let certificate = Certificate::from_der(&certificate).ok()?;
    Some(certificate.tbs_certificate.validity.not_after.to_unix_duration().as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    fn joined(lasts: u64) -> Joined {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut parameters = rcgen::CertificateParams::default();
        parameters.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now() + lasts);
        let certificate = parameters.self_signed(&key).unwrap().pem();
        Joined { name: "a".to_owned(), authority: certificate.clone(), certificate }
    }

    #[test]
    fn the_key_is_made_once_and_read_by_nobody_else() {
        let directory = std::env::temp_dir().join(format!("squall-identity-{}", std::process::id()));
        let vault = Vault::open(&directory).unwrap();
        let key = vault.key().unwrap().serialize_pem();
        assert_eq!(vault.key().unwrap().serialize_pem(), key);
        assert_eq!(fs::metadata(directory.join(KEY)).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
        assert!(!belongs(&directory) && vault.membership().unwrap().is_none());
        let kept = Membership::new(joined(3000)).unwrap();
        vault.keep(&kept).unwrap();
        assert!(belongs(&directory) && kept.is_good() && !kept.is_to_be_renewed());
        assert_eq!(vault.membership().unwrap().unwrap().until, kept.until);
        let old = Membership { from: now() - 7000, ..kept };
        assert!(old.is_to_be_renewed());
        assert!(!Membership::new(joined(0)).unwrap().is_good());
        let odd = Joined { certificate: "none".to_owned(), ..joined(1) };
        assert!(Membership::new(odd).is_err());
        assert_eq!(vault.key().unwrap().serialize_pem(), key);
        fs::remove_dir_all(directory).unwrap();
    }
}
