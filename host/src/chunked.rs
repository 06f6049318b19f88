//! A list that is changed in its middle at little cost, however long it is.

use std::ops::{Index, IndexMut, Range};

/// A list in chunks. A short one, as most are, is one vector and takes no more than that.
#[derive(Clone, Debug)]
pub struct ChunkedList<T>(Chunks<T>);

#[derive(Clone, Debug)]
#[expect(
    clippy::box_collection,
    reason = "so that a list takes no more room than a vector"
)]
enum Chunks<T> {
    One(Vec<T>),
    /// At least one, none of them empty.
    Many(Box<Vec<Vec<T>>>),
}

/// How many items a chunk has at most: as many as are moved in about the time in which the
/// chunk is found.
const CHUNK_MAX: usize = 1024;

impl<T> Default for ChunkedList<T> {
    fn default() -> Self {
        ChunkedList(Chunks::One(Vec::new()))
    }
}

impl<T> FromIterator<T> for ChunkedList<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut items: Vec<T> = items.into_iter().collect();
        if items.len() <= CHUNK_MAX {
            return ChunkedList(Chunks::One(items));
        }
        let mut chunks = Vec::with_capacity(items.len() / CHUNK_MAX + 1);
        let mut rest = items.drain(..).peekable();
        while rest.peek().is_some() {
            chunks.push(rest.by_ref().take(CHUNK_MAX).collect());
        }
        ChunkedList(Chunks::Many(Box::new(chunks)))
    }
}

impl<T> ChunkedList<T> {
    pub fn is_empty(&self) -> bool {
        self.chunks().iter().all(Vec::is_empty)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.chunks().iter().flatten()
    }

    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut T> {
        self.chunks_mut().iter_mut().flatten()
    }

    pub fn get(&self, index: usize) -> Option<&T> {
        let (chunk, at) = self.place(index);
        self.chunks()[chunk].get(at)
    }

    /// How many items come before the first for which `is_before` is false, where all such
    /// items come first.
    pub fn partition_point(&self, is_before: impl Fn(&T) -> bool) -> usize {
        let chunks = self.chunks();
        let chunk = chunks.partition_point(|items| items.last().is_some_and(&is_before));
        let before: usize = chunks[..chunk].iter().map(Vec::len).sum();
        let items = chunks.get(chunk);
        before + items.map_or(0, |items| items.partition_point(is_before))
    }

    /// Inserts an item before the one at `index`, which is at most the length.
    pub fn insert(&mut self, index: usize, item: T) {
        let (chunk, at) = self.place(index);
        let items = &mut self.chunks_mut()[chunk];
        if items.len() < CHUNK_MAX {
            if items.is_empty() {
                // Most lists have one item at a time.
                items.reserve_exact(1);
            }
            items.insert(at, item);
            return;
        }
        let mut later = items.split_off(CHUNK_MAX / 2);
        match at.checked_sub(CHUNK_MAX / 2) {
            Some(at) => later.insert(at, item),
            None => items.insert(at, item),
        }
        match &mut self.0 {
            Chunks::One(items) => {
                let chunks = vec![std::mem::take(items), later];
                self.0 = Chunks::Many(Box::new(chunks));
            }
            Chunks::Many(chunks) => chunks.insert(chunk + 1, later),
        }
    }

    /// Removes the item at `index`, which is less than the length.
    pub fn remove(&mut self, index: usize) -> T {
        let (chunk, at) = self.place(index);
        let items = &mut self.chunks_mut()[chunk];
        let item = items.remove(at);
        if items.is_empty() {
            self.remove_chunks(chunk..chunk + 1);
        }
        item
    }

    /// Removes the first items, at most all, and passes them to `take`.
    pub fn take_first(&mut self, count: usize, mut take: impl FnMut(T)) {
        let (chunk, at) = self.place(count);
        let chunks = self.chunks_mut();
        for items in &mut chunks[..chunk] {
            items.drain(..).for_each(&mut take);
        }
        chunks[chunk].drain(..at).for_each(take);
        let empty = chunk + usize::from(chunks[chunk].is_empty());
        self.remove_chunks(0..empty);
    }

    /// Removes all items; a short list keeps its room.
    pub fn clear(&mut self) {
        match &mut self.0 {
            Chunks::One(items) => items.clear(),
            Chunks::Many(_) => *self = ChunkedList::default(),
        }
    }

    /// Removes chunks that have become empty.
    fn remove_chunks(&mut self, empty: Range<usize>) {
        if let Chunks::Many(chunks) = &mut self.0 {
            chunks.drain(empty);
            if chunks.is_empty() {
                *self = ChunkedList::default();
            }
        }
    }

    /// The chunk of an item and its place there. The end is in the last chunk.
    fn place(&self, index: usize) -> (usize, usize) {
        let chunks = self.chunks();
        let mut at = index;
        for (chunk, items) in chunks.iter().enumerate() {
            if at < items.len() {
                return (chunk, at);
            }
            at -= items.len();
        }
        let last = chunks.len() - 1;
        (last, chunks[last].len() + at)
    }

    /// At least one.
    fn chunks(&self) -> &[Vec<T>] {
        match &self.0 {
            Chunks::One(items) => std::slice::from_ref(items),
            Chunks::Many(chunks) => chunks,
        }
    }

    fn chunks_mut(&mut self) -> &mut [Vec<T>] {
        match &mut self.0 {
            Chunks::One(items) => std::slice::from_mut(items),
            Chunks::Many(chunks) => chunks,
        }
    }
}

impl<T> Index<usize> for ChunkedList<T> {
    type Output = T;

    fn index(&self, index: usize) -> &T {
        let (chunk, at) = self.place(index);
        &self.chunks()[chunk][at]
    }
}

impl<T> IndexMut<usize> for ChunkedList<T> {
    fn index_mut(&mut self, index: usize) -> &mut T {
        let (chunk, at) = self.place(index);
        &mut self.chunks_mut()[chunk][at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_takes_no_more_than_a_vector() {
        assert_eq!(size_of::<ChunkedList<u64>>(), size_of::<Vec<u64>>());
    }

    /// Lists that grow to several chunks and shrink again, beside a vector.
    #[test]
    fn it_does_what_a_vector_does() {
        for seed in 0..8 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut model: Vec<usize> = (0..random.usize(..3 * CHUNK_MAX)).map(|n| n * 2).collect();
            let mut list: ChunkedList<usize> = model.iter().copied().collect();
            let steps = 8 * CHUNK_MAX;
            for step in 0..steps {
                let grows = step < steps / 2;
                match random.u8(..8) {
                    0..5 if grows => {
                        let item = random.usize(..10 * CHUNK_MAX);
                        let at = model.partition_point(|&known| known < item);
                        assert_eq!(list.partition_point(|&known| known < item), at);
                        model.insert(at, item);
                        list.insert(at, item);
                    }
                    7 if random.u8(..) < 4 => {
                        let count = random.usize(..=model.len());
                        let removed: Vec<usize> = model.drain(..count).collect();
                        let mut taken = Vec::new();
                        list.take_first(count, |item| taken.push(item));
                        assert_eq!(taken, removed);
                    }
                    _ if !model.is_empty() => {
                        let at = random.usize(..model.len());
                        assert_eq!(list.get(at), Some(&model[at]));
                        assert_eq!(list[at], model[at]);
                        assert_eq!(list.remove(at), model.remove(at));
                    }
                    _ => {}
                }
                assert_eq!(
                    list.is_empty(),
                    model.is_empty(),
                    "seed {seed}, step {step}"
                );
                assert_eq!(list.get(model.len()), None, "seed {seed}, step {step}");
            }
            assert!(list.iter().eq(&model), "seed {seed}");
            assert!(list.iter().rev().eq(model.iter().rev()), "seed {seed}");
            assert!(list.iter_mut().map(|item| *item).eq(model), "seed {seed}");
        }
    }
}
