//! The heap, for RSA's big integers alone: bounded, and cleared as it is given back.
//!
//! Private exponents and intermediate values live in heap blocks whose owners do not all wipe them. So the allocator
//! does: a block is cleared before it becomes free, and growing a block moves it (the default `realloc`), which clears
//! the old one.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
#[cfg(feature = "measure")]
use core::sync::atomic::{AtomicUsize, Ordering};

use embedded_alloc::LlffHeap;

/// Length of the heap in bytes. Opening with RSA-2048 takes 6.1 kB and key generation less than three times that; the
/// rest is for RSA-4096 and fragments.
const SIZE: usize = 48 * 1024;

/// The heap's memory.
#[repr(align(8))]
struct Memory(UnsafeCell<MaybeUninit<[u8; SIZE]>>);

// SAFETY: only the allocator reaches the memory, and it locks.
unsafe impl Sync for Memory {}

static MEMORY: Memory = Memory(UnsafeCell::new(MaybeUninit::uninit()));

/// An allocator that clears what it takes back.
struct WipingHeap(LlffHeap);

#[global_allocator]
static HEAP: WipingHeap = WipingHeap(LlffHeap::empty());

/// Gives the allocator its memory. Called once, before anything allocates.
pub fn start() {
    // SAFETY: the memory is static, SIZE bytes long, and in no other use; a second call would panic in `init`.
    unsafe { HEAP.0.init(MEMORY.0.get() as usize, SIZE) };
}

/// The most that was in use at a time, in bytes.
#[cfg(feature = "measure")]
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The most of the heap that was in use at a time, in bytes.
#[cfg(feature = "measure")]
#[must_use]
pub fn peak() -> usize {
    PEAK.load(Ordering::Relaxed)
}

/// The layout a block really gets: whole words, so that clearing by words covers all of it and nothing else.
fn whole_words(layout: Layout) -> Layout {
    match layout.align_to(align_of::<u32>()) {
        Ok(aligned) => aligned.pad_to_align(),
        // `align_to` fails only where rounding up overflows `isize`; no such block can exist, and the allocator says so.
        Err(_) => layout,
    }
}

/// Clears a block, so that no key stays behind in free memory.
///
/// # Safety
/// `block` must be a block of `layout` from [`whole_words`], and nobody else may use it.
#[cfg(not(feature = "sabotage-no-wipe"))]
unsafe fn clear(block: *mut u8, layout: Layout) {
    let words = block.cast::<u32>();
    for index in 0..layout.size() / size_of::<u32>() {
        // SAFETY: the block is aligned to words and made of whole ones. Volatile, or the compiler may leave out writes to
        // memory that is about to be free.
        unsafe { words.add(index).write_volatile(0) };
    }
}

/// Leaves a block as it is: the defect that the tests must notice.
///
/// # Safety
/// None needed; the signature is that of the real one.
#[cfg(feature = "sabotage-no-wipe")]
unsafe fn clear(_block: *mut u8, _layout: Layout) {}

// SAFETY: blocks come from `LlffHeap`, with a layout at least as large and as aligned as the one asked for, and go back to
// it with the same.
unsafe impl GlobalAlloc for WipingHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises; the layout is only rounded up.
        let block = unsafe { self.0.alloc(whole_words(layout)) };
        #[cfg(feature = "measure")]
        PEAK.fetch_max(self.0.used(), Ordering::Relaxed);
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let layout = whole_words(layout);
        // SAFETY: the caller gives back a block of ours, which `alloc` gave out with this very layout.
        unsafe {
            clear(block, layout);
            self.0.dealloc(block, layout);
        }
    }
}
