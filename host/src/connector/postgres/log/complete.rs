//! Up to where the log is known to have told all changes of the table.
//!
//! The publication is looked at after the log was read. What alters it is in force in the log
//! from its commit there on, and is seen by others a moment later. So what was read counts when
//! a look finds the publication as it was, and all transactions have ended that ran at a look
//! before, behind the read.

#[derive(Default)]
pub struct Complete {
    end: u64,
    /// The first transaction that had not begun at a look, and up to where was read before it.
    awaited: Option<(u64, u64)>,
}

impl Complete {
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The log was read up to a place, and then the publication was as before. All transactions
    /// below `ended` have ended then, none from `next` on has begun.
    pub fn looked(&mut self, read: u64, ended: u64, next: u64) {
        let (awaited, end) = *self.awaited.get_or_insert((next, read));
        if ended >= awaited {
            self.end = end;
            self.awaited = None;
        }
        if ended >= next {
            self.end = read;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_counts_when_no_transaction_runs_of_then() {
        let mut complete = Complete::default();
        complete.looked(10, 7, 7);
        assert_eq!(complete.end(), 10, "none ran");
        complete.looked(20, 7, 9);
        complete.looked(30, 8, 12);
        assert_eq!(complete.end(), 10, "one still runs of the first look");
        complete.looked(40, 9, 15);
        assert_eq!(
            complete.end(),
            20,
            "those behind it may have been in the log"
        );
        complete.looked(50, 10, 15);
        assert_eq!(complete.end(), 20);
        complete.looked(60, 15, 16);
        assert_eq!(complete.end(), 50);
        complete.looked(70, 17, 17);
        assert_eq!(complete.end(), 70);
    }
}
