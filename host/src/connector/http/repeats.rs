//! Remembers what was posted under which `Idempotency-Key`, and how much of it checkpoints
//! have: what is posted again is not taken twice, also after a crash.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use hashbrown::HashMap;
use sha2::{Digest as _, Sha256};
use twox_hash::XxHash3_64;

/// How much is remembered, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub keys_max: usize,
    pub age_ms_max: i64,
}

/// A key, and the body that was posted under it, as digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostedAs {
    key: KeyDigest,
    body: u64,
}

type KeyDigest = [u8; 16];

impl PostedAs {
    pub fn new(key: &str, body: &[u8]) -> Self {
        let digest = Sha256::digest(key.as_bytes());
        let (key, _) = digest.split_first_chunk().expect("it has 32 bytes");
        PostedAs {
            key: *key,
            body: XxHash3_64::oneshot(body),
        }
    }
}

/// The key was that of another body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherBody;

/// What was posted under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    body: u64,
    at_ms: i64,
    pub rows: u64,
    /// How many of those that were handed out were bad.
    pub bad: u64,
    /// How many rows an earlier run has handed out.
    pub before: u64,
    /// The offset of the first of the others, if they have come.
    pub first: Option<u64>,
}

impl Remembered {
    /// How many of its rows are before this position.
    fn handed_out(&self, position: u64) -> u64 {
        let since = self.first.map_or(0, |first| position.saturating_sub(first));
        self.before + since.min(self.rows - self.before)
    }
}

/// What was posted under which key.
#[derive(Debug)]
pub struct Repeats {
    memory: Memory,
    by_key: HashMap<KeyDigest, Remembered>,
    /// The oldest first.
    order: VecDeque<KeyDigest>,
}

/// Bytes of one of them in a checkpoint: key, body, time, and three numbers of rows.
const KEPT_BYTES: usize = 16 + 8 + 8 + 3 * 4;

impl Repeats {
    pub fn new(memory: Memory) -> Self {
        Repeats {
            memory,
            by_key: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// What was posted under this key.
    pub fn find(
        &mut self,
        posted: &PostedAs,
        now_ms: i64,
    ) -> Result<Option<Remembered>, OtherBody> {
        self.forget(now_ms);
        match self.by_key.get(&posted.key) {
            Some(known) if known.body == posted.body => Ok(Some(*known)),
            Some(_) => Err(OtherBody),
            None => Ok(None),
        }
    }

    /// Notes rows that have come under a key, from this offset on, behind those that an
    /// earlier run has handed out.
    pub fn note(&mut self, posted: &PostedAs, rows: u64, first: u64, now_ms: i64) {
        if let Some(known) = self.by_key.get_mut(&posted.key) {
            known.first = Some(first);
            return;
        }
        let remembered = Remembered {
            body: posted.body,
            at_ms: now_ms,
            rows,
            bad: 0,
            before: 0,
            first: Some(first),
        };
        self.by_key.insert(posted.key, remembered);
        self.order.push_back(posted.key);
        self.forget(now_ms);
    }

    /// One of the rows that came under this key is bad.
    pub fn note_bad(&mut self, posted: &PostedAs) {
        if let Some(known) = self.by_key.get_mut(&posted.key) {
            known.bad += 1;
        }
    }

    /// Forgets what is old, and the oldest where there are too many.
    fn forget(&mut self, now_ms: i64) {
        while let Some(oldest) = self.order.front() {
            let is_old = self
                .by_key
                .get(oldest)
                .is_none_or(|known| known.at_ms.saturating_add(self.memory.age_ms_max) <= now_ms);
            if !is_old && self.order.len() <= self.memory.keys_max {
                return;
            }
            if let Some(oldest) = self.order.pop_front() {
                self.by_key.remove(&oldest);
            }
        }
    }

    /// What a checkpoint with this position keeps: of each, how many rows it has.
    pub fn kept(&self, position: u64) -> Option<String> {
        let mut bytes = Vec::with_capacity(self.order.len() * KEPT_BYTES);
        for key in &self.order {
            let Some(known) = self.by_key.get(key) else {
                continue;
            };
            let handed_out = known.handed_out(position);
            if handed_out == 0 && known.rows > 0 {
                continue;
            }
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(&known.body.to_le_bytes());
            bytes.extend_from_slice(&known.at_ms.to_le_bytes());
            for rows in [known.rows, handed_out, known.bad] {
                // No body has more.
                bytes.extend_from_slice(&(rows as u32).to_le_bytes());
            }
        }
        (!bytes.is_empty()).then(|| BASE64_STANDARD_NO_PAD.encode(bytes))
    }

    /// Takes what a checkpoint has kept. `None` if it is not that.
    pub fn restore(memory: Memory, kept: &str, now_ms: i64) -> Option<Self> {
        let bytes = BASE64_STANDARD_NO_PAD.decode(kept).ok()?;
        let mut repeats = Repeats::new(memory);
        let (entries, rest) = bytes.as_chunks::<KEPT_BYTES>();
        if !rest.is_empty() {
            return None;
        }
        for entry in entries {
            let (key, rest) = entry.split_first_chunk::<16>()?;
            let (body, rest) = rest.split_first_chunk::<8>()?;
            let (at_ms, rest) = rest.split_first_chunk::<8>()?;
            let (numbers, _) = rest.as_chunks::<4>();
            let [rows, before, bad] = numbers else {
                return None;
            };
            let [rows, before, bad] =
                [rows, before, bad].map(|number| u64::from(u32::from_le_bytes(*number)));
            let remembered = Remembered {
                body: u64::from_le_bytes(*body),
                at_ms: i64::from_le_bytes(*at_ms),
                rows,
                bad,
                before: before.min(rows),
                first: None,
            };
            if repeats.by_key.insert(*key, remembered).is_none() {
                repeats.order.push_back(*key);
            }
        }
        repeats.forget(now_ms);
        Some(repeats)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const MEMORY: Memory = Memory {
        keys_max: 3,
        age_ms_max: 1_000,
    };

    #[test]
    fn a_key_is_remembered_with_its_body() {
        let mut repeats = Repeats::new(MEMORY);
        let one = PostedAs::new("one", b"{}");
        assert_eq!(repeats.find(&one, 0), Ok(None));
        repeats.note(&one, 5, 100, 0);
        let known = repeats.find(&one, 1).expect("the same").expect("known");
        assert_eq!((known.rows, known.before, known.first), (5, 0, Some(100)));
        assert_eq!(
            repeats.find(&PostedAs::new("one", b"[]"), 1),
            Err(OtherBody)
        );
        assert_eq!(repeats.find(&PostedAs::new("two", b"{}"), 1), Ok(None));
    }

    #[test]
    fn what_is_old_or_too_much_is_forgotten() {
        let mut repeats = Repeats::new(MEMORY);
        let posted: Vec<PostedAs> = (0..5).map(|n| PostedAs::new(&n.to_string(), b"")).collect();
        for (n, posted) in posted.iter().enumerate() {
            repeats.note(posted, 1, n as u64, n as i64);
        }
        let mut known = |now_ms| {
            let known = posted
                .iter()
                .map(|it| repeats.find(it, now_ms).expect("one body"));
            known.map(|it| it.is_some()).collect::<Vec<bool>>()
        };
        assert_eq!(known(5), [false, false, true, true, true]);
        assert_eq!(known(1_003), [false, false, false, false, true]);
    }

    /// What earlier versions have kept can be read.
    #[test]
    fn what_is_kept_does_not_change() {
        let mut repeats = Repeats::new(MEMORY);
        let posted = PostedAs::new("one", b"rows");
        repeats.note(&posted, 7, 100, 1_704_103_200_000);
        repeats.note_bad(&posted);
        let kept = repeats.kept(103).expect("some are in it");
        expect!["dpLDrTVAu4A8Ags67mbNiOwTQEqdJG+JAEV3xIwBAAAHAAAAAwAAAAEAAAA"].assert_eq(&kept);
        let mut restored = Repeats::restore(MEMORY, &kept, 1_704_103_200_000).expect("kept");
        let known = restored.find(&posted, 1_704_103_200_000).expect("the same");
        let known = known.map(|it| (it.rows, it.before, it.bad));
        assert_eq!(known, Some((7, 3, 1)));
    }

    #[test]
    fn a_checkpoint_keeps_what_it_has_of_each() {
        let mut repeats = Repeats::new(MEMORY);
        let posted = ["whole", "part", "none"].map(|key| PostedAs::new(key, b"rows"));
        for (posted, first) in posted.iter().zip([0, 10, 20]) {
            repeats.note(posted, 10, first, 7);
        }
        repeats.note_bad(&posted[0]);
        let kept = repeats.kept(14).expect("two have rows in it");
        let mut restored = Repeats::restore(MEMORY, &kept, 7).expect("it was kept");
        let find = |repeats: &mut Repeats, posted| repeats.find(posted, 7).expect("the same");
        let whole = find(&mut restored, &posted[0]).expect("known");
        assert_eq!((whole.rows, whole.before, whole.bad), (10, 10, 1));
        let part = find(&mut restored, &posted[1]).expect("known");
        assert_eq!((part.rows, part.before, part.first), (10, 4, None));
        assert_eq!(find(&mut restored, &posted[2]), None);
        // Its rest comes, and a later checkpoint has some of that.
        restored.note(&posted[1], 10, 14, 7);
        let kept = restored.kept(17).expect("they are known");
        let mut restored = Repeats::restore(MEMORY, &kept, 7).expect("it was kept");
        let part = find(&mut restored, &posted[1]).expect("known");
        assert_eq!((part.rows, part.before), (10, 7));
        assert_eq!(Repeats::new(MEMORY).kept(0), None);
        for wrong in ["", "?", "AAAA"] {
            let restored = Repeats::restore(MEMORY, wrong, 0);
            assert_eq!(restored.is_some(), wrong.is_empty(), "{wrong}");
        }
    }
}
