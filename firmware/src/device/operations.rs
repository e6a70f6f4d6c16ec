//! A count of private-key operations, so that a test can see that none was wasted on an order that is not the authority's.

/// Private-key operations since the start.
///
/// All but `status` belong to orders. No order that is unsigned, altered, another authority's or for another device moves any of
/// them (SPEC.md, M-14): that is what [`Operations::for_orders`] is compared for. `status` answers a question that anybody at the line may
/// ask, so it does move then, and decides nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// With the unwrap key: a KEK was opened.
    pub unwrap: u32,
    /// With the identity key: the receipt of an order was signed.
    pub receipt: u32,
    /// With the vendor key: a voucher was signed.
    pub voucher: u32,
    /// With a key in a slot: a proof was made, also with a secret key.
    pub proof: u32,
    /// With the identity key: a status was signed.
    pub status: u32,
}

impl Operations {
    /// All that orders have cost.
    #[must_use]
    pub const fn for_orders(&self) -> u32 {
        self.unwrap
            .wrapping_add(self.receipt)
            .wrapping_add(self.voucher)
            .wrapping_add(self.proof)
    }

    /// The counts in the order of the fields.
    #[must_use]
    pub const fn counts(&self) -> [u32; 5] {
        [
            self.unwrap,
            self.receipt,
            self.voucher,
            self.proof,
            self.status,
        ]
    }
}
