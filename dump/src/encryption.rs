//! Encryption of what is written into a store, and its decryption, in the format of age (age-encryption.org/v1).

use std::{
    fmt,
    io::{self, Read, Seek, SeekFrom, Write},
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use age::{DecryptError, Decryptor, Encryptor, scrypt, secrecy::SecretString, stream::StreamWriter, x25519};
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use tokio::{runtime::Handle, sync::mpsc};

use crate::{
    Reason, Segment, Store, StoreError,
    secrets::Redactor,
    segments::{segment_stream, segments_of},
};

/// What age encrypts as one, in bytes: plain, and with its tag.
const CHUNK: u64 = 64 * 1024;
const ENCRYPTED_CHUNK: u64 = CHUNK + 16;

/// How much is read first: the header with 16 recipients has some 2,000 bytes.
const HEADER: u64 = 4 * 1024;

/// How much is read at once.
const PIECE: u64 = 1024 * 1024;

/// Public keys that a dump is encrypted for: any one of their private keys decrypts it.
#[derive(Clone)]
pub struct Recipients(Vec<x25519::Recipient>);

/// Text that is no public key of age.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {} is not an age public key (age1…, X25519): {problem}", .position + 1)]
pub struct RecipientError {
    /// Its position in the list, from 0.
    pub position: usize,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl Recipients {
    /// Parses keys as `age-keygen` prints them. `None` without any.
    pub fn parse(keys: &[String]) -> Result<Option<Self>, RecipientError> {
        let parse = |(position, key): (usize, &String)| {
            key.parse::<x25519::Recipient>().map_err(|problem| RecipientError { position, problem })
        };
        let all = keys.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
        Ok((!all.is_empty()).then_some(Self(all)))
    }
}

/// Private keys that decrypt backups.
#[derive(Clone)]
pub struct Identities {
    keys: Arc<Vec<x25519::Identity>>,
    secrets: Redactor,
}

/// Text that holds no private key of age. It is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityTextError {
    /// A line is something else.
    #[error("line {0} is neither an age private key (AGE-SECRET-KEY-1…) nor a comment")]
    Line(usize),
    /// There is none.
    #[error("it contains no age private key")]
    Empty,
}

impl Identities {
    /// Parses what `age-keygen` writes: a key per line, empty lines, and comments that start with `#`.
    pub fn parse(text: &str) -> Result<Self, IdentityTextError> {
        let mut keys = Vec::new();
        let mut secrets = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            keys.push(line.parse::<x25519::Identity>().map_err(|_| IdentityTextError::Line(number + 1))?);
            secrets.push(line);
        }
        if keys.is_empty() {
            return Err(IdentityTextError::Empty);
        }
        Ok(Self { secrets: Redactor::new(secrets), keys: Arc::new(keys) })
    }

    fn iter(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.keys.iter().map(|key| key as &dyn age::Identity)
    }

    /// The keys, which no message may contain.
    pub fn secrets(&self) -> &Redactor {
        &self.secrets
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} age identities", self.keys.len())
    }
}

impl fmt::Debug for Recipients {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.0.iter().map(ToString::to_string)).finish()
    }
}

/// The key of the row counts of encrypted dumps: a run without a private key compares them with those of the run before, and the
/// store alone reveals neither them nor the names of tables.
#[derive(Clone)]
pub struct RowsKey(SecretString);

/// The key is random already: making it slow to guess would only cost time.
const ROWS_WORK_FACTOR: u8 = 4;

impl RowsKey {
    /// At least 128 random bits, as text: it is used as a passphrase of age.
    pub fn new(key: String) -> Self {
        Self(SecretString::from(key))
    }

    pub(crate) fn encrypt(&self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut recipient = scrypt::Recipient::new(self.0.clone());
        recipient.set_work_factor(ROWS_WORK_FACTOR);
        encrypt_for([&recipient as &dyn age::Recipient], bytes)
    }

    /// What was encrypted with the same key.
    pub(crate) fn decrypt(&self, what: &str, bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut identity = scrypt::Identity::new(self.0.clone());
        // A store in which others write cannot make it slow.
        identity.set_max_work_factor(ROWS_WORK_FACTOR);
        decrypt_with([&identity as &dyn age::Identity], what, bytes)
    }
}

impl fmt::Debug for RowsKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RowsKey")
    }
}

/// Where the encrypted bytes wait to be taken.
#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<Vec<u8>>>);

impl Pipe {
    fn take(&self, into: &mut Vec<u8>) {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Both keep their memory.
        into.clear();
        std::mem::swap(into, &mut bytes);
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Encrypts a stream.
pub(crate) struct Encryption {
    writer: StreamWriter<Pipe>,
    pipe: Pipe,
}

impl Encryption {
    pub(crate) fn start(recipients: &Recipients) -> io::Result<Self> {
        Self::start_for(recipients.0.iter().map(|recipient| recipient as &dyn age::Recipient))
    }

    fn start_for<'a>(recipients: impl IntoIterator<Item = &'a dyn age::Recipient>) -> io::Result<Self> {
        let pipe = Pipe::default();
        let encryptor = Encryptor::with_recipients(recipients.into_iter()).map_err(io::Error::other)?;
        Ok(Self { writer: encryptor.wrap_output(pipe.clone())?, pipe })
    }

    /// Encrypts some bytes. What can be written by now replaces the content of `out`.
    pub(crate) fn write(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        self.writer.write_all(bytes)?;
        self.pipe.take(out);
        Ok(())
    }

    /// The rest. Without it, nothing can be decrypted to its end.
    pub(crate) fn finish(self, out: &mut Vec<u8>) -> io::Result<()> {
        self.writer.finish()?;
        self.pipe.take(out);
        Ok(())
    }
}

/// A small object as a whole.
pub(crate) fn encrypt(recipients: &Recipients, bytes: &[u8]) -> io::Result<Vec<u8>> {
    encrypt_for(recipients.0.iter().map(|recipient| recipient as &dyn age::Recipient), bytes)
}

fn encrypt_for<'a>(recipients: impl IntoIterator<Item = &'a dyn age::Recipient>, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encryption = Encryption::start_for(recipients)?;
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    encryption.write(bytes, &mut first)?;
    encryption.finish(&mut rest)?;
    first.extend_from_slice(&rest);
    Ok(first)
}

/// A small object as a whole.
pub(crate) fn decrypt(identities: Option<&Identities>, what: &str, bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
    let identities = identities.ok_or_else(|| identity_required(what))?;
    decrypt_with(identities.iter(), what, bytes)
}

fn decrypt_with<'a>(
    identities: impl IntoIterator<Item = &'a dyn age::Identity>,
    what: &str,
    bytes: &[u8],
) -> Result<Vec<u8>, StoreError> {
    let mut plain = Vec::new();
    let decryptor = Decryptor::new_buffered(bytes).map_err(|error| failed(what, &error))?;
    let mut reader = decryptor.decrypt(identities.into_iter()).map_err(|error| failed(what, &error))?;
    reader.read_to_end(&mut plain).map_err(|error| damaged(what, &error))?;
    Ok(plain)
}

/// Decrypts a stream from its beginning to its end: what is sent comes out decrypted. That the input ends too early is an error.
pub(crate) fn decrypt_stream(
    identities: &Identities,
    what: &str,
) -> (mpsc::Sender<Bytes>, mpsc::Receiver<Result<Bytes, StoreError>>) {
    let (input, pieces) = mpsc::channel(2);
    let (sender, receiver) = mpsc::channel(2);
    let (identities, what) = (identities.clone(), what.to_owned());
    // As below.
    tokio::task::spawn_blocking(move || {
        if let Err(error) = send_all(PieceReader { pieces, piece: Bytes::new() }, (&identities, &what), &sender) {
            let _ = sender.blocking_send(Err(error));
        }
    });
    (input, receiver)
}

fn send_all(
    reader: PieceReader,
    (identities, what): (&Identities, &str),
    sender: &mpsc::Sender<Result<Bytes, StoreError>>,
) -> Result<(), StoreError> {
    let decryptor = Decryptor::new(reader).map_err(|error| failed(what, &error))?;
    let mut plain = decryptor.decrypt(identities.iter()).map_err(|error| failed(what, &error))?;
    loop {
        let mut piece = Vec::new();
        let size = (&mut plain).take(PIECE).read_to_end(&mut piece).map_err(|error| damaged(what, &error))?;
        if size == 0 || sender.blocking_send(Ok(piece.into())).is_err() {
            return Ok(());
        }
    }
}

/// Pieces that are sent as one stream.
struct PieceReader {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for PieceReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            let Some(piece) = self.pieces.blocking_recv() else { return Ok(0) };
            self.piece = piece;
        }
        let size = self.piece.len().min(out.len());
        out[..size].copy_from_slice(&self.piece.split_to(size));
        Ok(size)
    }
}

/// The bytes of a part of an encrypted stream that is cut into segments: the header is read, and the chunks of that part.
pub(crate) fn decrypt_part(
    store: &Store,
    location: &str,
    segments: &[Segment],
    part: Range<u64>,
) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
    let (sender, receiver) = mpsc::channel(2);
    let reader = RangeReader {
        store: store.clone(),
        location: location.to_owned(),
        size: segments.iter().map(|segment| segment.size_bytes).sum(),
        segments: segments.to_vec(),
        runtime: Handle::current(),
        position: Arc::default(),
        wanted: Arc::new(AtomicU64::new(HEADER)),
        buffered: Bytes::new(),
        buffer_start: 0,
    };
    // age reads and seeks by blocking calls.
    tokio::task::spawn_blocking(move || {
        let failure = send_part(reader, part, &sender).err();
        if let Some(error) = failure {
            // The receiver may have gone.
            let _ = sender.blocking_send(Err(error));
        }
    });
    futures::stream::unfold(receiver, async |mut receiver| receiver.recv().await.map(|piece| (piece, receiver)))
}

fn send_part(
    reader: RangeReader,
    part: Range<u64>,
    sender: &mpsc::Sender<Result<Bytes, StoreError>>,
) -> Result<(), StoreError> {
    let location = reader.location.clone();
    let identities = reader.store.identities().cloned().ok_or_else(|| identity_required(&location))?;
    let (position, wanted) = (Arc::clone(&reader.position), Arc::clone(&reader.wanted));
    let decryptor = Decryptor::new(reader).map_err(|error| failed(&location, &error))?;
    let start = position.load(Ordering::Relaxed);
    let mut plain = decryptor.decrypt(identities.iter()).map_err(|error| failed(&location, &error))?;
    wanted.store(start + part.end.div_ceil(CHUNK) * ENCRYPTED_CHUNK, Ordering::Relaxed);
    plain.seek(SeekFrom::Start(part.start)).map_err(|error| damaged(&location, &error))?;
    let mut left = part.end - part.start;
    while left > 0 {
        let size = usize::try_from(left.min(CHUNK)).unwrap_or(usize::MAX);
        let mut piece = vec![0; size];
        plain.read_exact(&mut piece).map_err(|error| damaged(&location, &error))?;
        left -= size as u64;
        if sender.blocking_send(Ok(piece.into())).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn identity_required(what: &str) -> StoreError {
    let detail =
        "it is encrypted, and no age identity is given: use --identity-file, or spec.decryption.identitySecretRef";
    StoreError::Decrypt { what: what.to_owned(), reason: Reason::IdentityRequired, detail: detail.to_owned() }
}

fn failed(what: &str, error: &DecryptError) -> StoreError {
    let (reason, detail) = match error {
        DecryptError::NoMatchingKeys => {
            (Reason::IdentityRequired, "it is encrypted for other recipients than the given age identities".to_owned())
        }
        DecryptError::Io(error) => return damaged(what, error),
        _ => (Reason::ArchiveInvalid, error.to_string()),
    };
    StoreError::Decrypt { what: what.to_owned(), reason, detail }
}

/// The store's own error keeps its reason.
fn damaged(what: &str, error: &io::Error) -> StoreError {
    if let Some(StoreError::Failed { action, reason, detail }) =
        error.get_ref().and_then(|inner| inner.downcast_ref::<StoreError>())
    {
        return StoreError::Failed { action: action.clone(), reason: *reason, detail: detail.clone() };
    }
    StoreError::Decrypt { what: what.to_owned(), reason: Reason::ArchiveInvalid, detail: error.to_string() }
}

/// Segments in order as one seekable stream.
struct RangeReader {
    store: Store,
    location: String,
    segments: Vec<Segment>,
    size: u64,
    runtime: Handle,
    position: Arc<AtomicU64>,
    /// Nothing beyond this is read ahead.
    wanted: Arc<AtomicU64>,
    buffered: Bytes,
    buffer_start: u64,
}

impl RangeReader {
    fn fetch(&self, position: u64) -> Result<Bytes, StoreError> {
        let wanted = self.wanted.load(Ordering::Relaxed);
        let end = if position < wanted { wanted.min(position + PIECE) } else { position + ENCRYPTED_CHUNK };
        let range = position..end.min(self.size);
        let parts = segments_of(&self.segments, &range).unwrap_or_default();
        let stream = segment_stream(&self.store, &self.location, parts);
        let pieces: Vec<Bytes> = self.runtime.block_on(stream.try_collect())?;
        Ok(match <[Bytes; 1]>::try_from(pieces) {
            Ok([piece]) => piece,
            Err(pieces) => pieces.concat().into(),
        })
    }
}

impl Read for RangeReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let position = self.position.load(Ordering::Relaxed);
        if position >= self.size || out.is_empty() {
            return Ok(0);
        }
        let is_buffered = |start: u64, length: usize| (start..start + length as u64).contains(&position);
        if !is_buffered(self.buffer_start, self.buffered.len()) {
            self.buffered = self.fetch(position).map_err(io::Error::other)?;
            self.buffer_start = position;
        }
        let offset = usize::try_from(position - self.buffer_start).unwrap_or(usize::MAX);
        let available = self.buffered.get(offset..).unwrap_or_default();
        let size = available.len().min(out.len());
        out[..size].copy_from_slice(&available[..size]);
        self.position.store(position + size as u64, Ordering::Relaxed);
        Ok(size)
    }
}

impl Seek for RangeReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = self.position.load(Ordering::Relaxed);
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.size.checked_add_signed(offset),
            SeekFrom::Current(offset) => position.checked_add_signed(offset),
        };
        let target = target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.position.store(target, Ordering::Relaxed);
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use age::secrecy::ExposeSecret;

    fn key() -> (String, String) {
        let identity = x25519::Identity::generate();
        (identity.to_string().expose_secret().to_owned(), identity.to_public().to_string())
    }

    #[test]
    fn any_one_recipient_decrypts_and_no_other() {
        let keys = [key(), key(), key()];
        let recipients: Vec<String> = keys[..2].iter().map(|(_, public)| public.clone()).collect();
        let recipients = Recipients::parse(&recipients).unwrap().unwrap();
        let sealed = encrypt(&recipients, b"rows").unwrap();
        assert!(!sealed.windows(4).any(|bytes| bytes == b"rows"));
        for (secret, _) in &keys[..2] {
            let text = format!("# created: today\n\n{secret}\n");
            let identities = Identities::parse(&text).unwrap();
            assert_eq!(decrypt(Some(&identities), "x", &sealed).unwrap(), b"rows");
        }
        let other = Identities::parse(&keys[2].0).unwrap();
        for identities in [Some(&other), None] {
            assert_eq!(decrypt(identities, "x", &sealed).unwrap_err().reason(), Reason::IdentityRequired);
        }
        let both = Identities::parse(&format!("{}\n{}", keys[2].0, keys[0].0)).unwrap();
        assert_eq!(decrypt(Some(&both), "x", &sealed).unwrap(), b"rows");
        let cut = decrypt(Some(&both), "x", &sealed[..sealed.len() - 1]).unwrap_err();
        assert_eq!(cut.reason(), Reason::ArchiveInvalid);
    }

    #[test]
    fn bad_keys_are_named_by_their_place_and_never_repeated() {
        let (secret, public) = key();
        let mut damaged = public.clone();
        damaged.replace_range(10..11, if &damaged[10..11] == "q" { "p" } else { "q" });
        for bad in [damaged.as_str(), "age1", "ssh-ed25519 AAAA", secret.as_str(), ""] {
            let error = Recipients::parse(&[public.clone(), bad.to_owned()]).unwrap_err();
            assert_eq!(error.position, 1, "{bad}");
            assert!(bad.len() < 10 || !error.to_string().contains(bad), "{error}");
        }
        assert!(Recipients::parse(&[]).unwrap().is_none());
        let half = &secret[..40];
        let error = Identities::parse(&format!("# x\n{half}")).unwrap_err();
        assert_eq!(error, IdentityTextError::Line(2));
        assert_eq!(Identities::parse("# only\n").unwrap_err(), IdentityTextError::Empty);
        let identities = Identities::parse(&secret).unwrap();
        assert!(!format!("{identities:?}").contains(&secret));
        assert!(!identities.secrets().clean(&format!("key {secret}")).contains(&secret));
    }

    #[test]
    fn pieces_of_any_size_make_one_stream() {
        let (secret, public) = key();
        let recipients = Recipients::parse(&[public]).unwrap().unwrap();
        let plain: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        for size in [1_000, 65_536, 200_000] {
            let mut encryption = Encryption::start(&recipients).unwrap();
            let (mut sealed, mut out) = (Vec::new(), Vec::new());
            for piece in plain.chunks(size) {
                encryption.write(piece, &mut out).unwrap();
                sealed.extend_from_slice(&out);
            }
            encryption.finish(&mut out).unwrap();
            sealed.extend_from_slice(&out);
            let identities = Identities::parse(&secret).unwrap();
            assert_eq!(decrypt(Some(&identities), "x", &sealed).unwrap(), plain);
        }
    }
}
