//! What is left of an item, and for whom it is reserved.

use sluicebox_sdk::prelude::*;

/// The state of an item. What is in the warehouse is what is left and what is reserved.
#[derive(Record, Clone, Debug, Default, PartialEq)]
pub struct Item {
    /// The stock that is not reserved. Below 0 only if more was taken out of the
    /// warehouse than had come in.
    pub left: i64,
    /// Whether it was said that little is left.
    pub is_low: bool,
    /// One for each user, in the order in which they came.
    pub reservations: Vec<Reservation>,
}

#[derive(Record, Clone, Debug, PartialEq)]
pub struct Reservation {
    pub user_id: String,
    pub quantity: i64,
    pub expires: Timestamp,
}

impl Item {
    /// How many are reserved for a user.
    pub fn reserved(&self, user_id: &str) -> i64 {
        self.find(user_id)
            .map_or(0, |index| self.reservations[index].quantity)
    }

    /// Reserves some of what is left, and returns when the user's reservation expires:
    /// the later time, if there is one already.
    pub fn reserve(&mut self, user_id: &str, quantity: i64, expires: Timestamp) -> Timestamp {
        self.left -= quantity;
        match self.find(user_id) {
            Some(index) => {
                let reservation = &mut self.reservations[index];
                reservation.quantity += quantity;
                reservation.expires = reservation.expires.max(expires);
                reservation.expires
            }
            None => {
                self.reservations.push(Reservation {
                    user_id: user_id.to_owned(),
                    quantity,
                    expires,
                });
                expires
            }
        }
    }

    /// Takes some of what a user has reserved, if there is as much.
    pub fn take(&mut self, user_id: &str, quantity: i64) -> bool {
        let Some(index) = self.find(user_id) else {
            return false;
        };
        let reserved = &mut self.reservations[index].quantity;
        if *reserved < quantity {
            return false;
        }
        *reserved -= quantity;
        if *reserved == 0 {
            self.reservations.remove(index);
        }
        true
    }

    /// Releases reservations that expire until a time, in the order in which they do.
    pub fn release_until(&mut self, until: Timestamp) -> Vec<Reservation> {
        let is_due = |reservation: &mut Reservation| reservation.expires <= until;
        let mut due: Vec<Reservation> = self.reservations.extract_if(.., is_due).collect();
        due.sort_by_key(|reservation| reservation.expires);
        self.left += due.iter().map(|due| due.quantity).sum::<i64>();
        due
    }

    /// Releases the newest reservation, if less is in the warehouse than is reserved.
    pub fn release_uncovered(&mut self) -> Option<Reservation> {
        if self.left >= 0 {
            return None;
        }
        let newest = self.reservations.pop()?;
        self.left += newest.quantity;
        Some(newest)
    }

    /// When the first reservation expires.
    pub fn next_to_expire(&self) -> Option<Timestamp> {
        self.reservations
            .iter()
            .map(|reservation| reservation.expires)
            .min()
    }

    fn find(&self, user_id: &str) -> Option<usize> {
        self.reservations
            .iter()
            .position(|reservation| reservation.user_id == user_id)
    }
}
