//! The steady state allocates nothing: once tables and buffers have grown, a batch of known keys costs no
//! call of the allocator. A binary of its own, because the counting allocator counts everything.

#![expect(unsafe_code, reason = "an allocator that counts its calls")]

use std::alloc::{GlobalAlloc, Layout as MemoryLayout, System};
use std::cell::Cell;
use std::time::Duration;

use flowgauge::aggregate::{
    Metric, Router, RowLists, TOTALS_COLUMNS, TimeSettings, TopSet, TopSpec, Totals, Watermarks,
};
use flowgauge::framing::InputId;
use flowgauge::record::{ColumnSet, FieldId, Layout, ParsedBlock, Parser, Slot, TextSlice};
use flowgauge::simd::Isa;
use flowgauge::units::UnixSeconds;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: MemoryLayout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: MemoryLayout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often this thread asks for memory in `work`.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = CALLS.get();
    work();
    CALLS.get() - before
}

fn top(fields: &[FieldId], metric: Metric) -> TopSpec {
    let by = fields.iter().copied().map(Slot::Known).collect();
    TopSpec { by, metric, rows_max: 10, metric_min: 0, window_seconds: None }
}

/// Every kind of key and of distinct value.
fn tops() -> Vec<TopSpec> {
    use FieldId::{DstAddr, DstPort, End, InterfaceId, SrcAddr};
    let distinct = |field| Metric::Distinct(Slot::Known(field));
    vec![
        top(&[SrcAddr], Metric::Bytes),
        top(&[DstAddr], Metric::Bytes),
        top(&[SrcAddr, DstAddr], Metric::Bytes),
        top(&[DstPort], Metric::Bytes),
        top(&[InterfaceId], Metric::Bytes),
        top(&[SrcAddr, DstAddr], distinct(DstPort)),
        top(&[DstPort], distinct(SrcAddr)),
        top(&[SrcAddr, End], distinct(InterfaceId)),
        TopSpec { window_seconds: Some(60), ..top(&[DstAddr], Metric::Packets) },
    ]
}

fn lines() -> TextSlice {
    let line = |i: u32| {
        let end = 1_700_000_000 + i / 100;
        let (a, b) = (i % 251, i * 7 % 241);
        match i % 40 {
            0 => format!("2 1 eni-{a} - - - - - - - {end} {end} - NODATA\n"),
            1 => format!(
                "2 1 eni-{a} 2001:db8::{a} 2001:db8::{b} 1 {b} 6 1 2 {end} {end} ACCEPT OK\n"
            ),
            _ => format!("2 1 eni-{a} 10.0.0.{a} 10.1.0.{b} 1 {b} 17 1 2 {end} {end} REJECT OK\n"),
        }
    };
    let text: String = (0..9000).map(line).collect();
    TextSlice::from(text.into_bytes())
}

#[test]
fn known_keys_allocate_nothing_from_text_to_tables() {
    const INPUT: InputId = InputId(0);
    let (tops, lines, layout) = (tops(), lines(), Layout::default_v2());
    let mut columns: ColumnSet = TOTALS_COLUMNS.into_iter().collect();
    tops.iter().flat_map(TopSpec::slots).for_each(|slot| columns.insert_slot(&slot));
    for (isa, shard_count) in
        Isa::available().into_iter().flat_map(|isa| [1, 3].map(|shards| (isa, shards)))
    {
        let mut parser = Parser::new(isa, columns.clone());
        let mut block = ParsedBlock::default();
        let mut router = Router::new(&tops, true, shard_count, 1);
        let mut shards: Vec<TopSet> =
            (0..shard_count).map(|_| TopSet::new(&tops, 1, usize::MAX)).collect();
        let mut totals = Totals::default();
        let time = TimeSettings {
            lateness_seconds: 100,
            idle_after: None,
            latest_plausible_end: UnixSeconds::MAX,
        };
        let mut watermarks = Watermarks::new(time, 1);
        watermarks.open(INPUT, Duration::ZERO);
        let mut lists = RowLists::default();
        let mut pass = || {
            parser.parse_into(lines.text(), lines.range(), &layout, &mut block);
            assert_eq!(block.faults.total(), 0);
            for batch in block.batches.drain(..) {
                totals.add_batch(&batch, None);
                let routed = router.route(batch, None, std::mem::take(&mut lists));
                let ends = routed.batch.seconds(FieldId::End).expect("a column of the job");
                let late = watermarks.observe(INPUT, Duration::ZERO, &ends, routed.kept_rows());
                assert!(late.is_empty());
                watermarks.advance(Duration::ZERO);
                shards.iter_mut().enumerate().for_each(|(index, shard)| shard.add(&routed, index));
                let (batch, used_lists) = routed.into_parts();
                parser.recycle(batch);
                lists = used_lists;
            }
        };
        pass();
        pass();
        assert_eq!(allocations(pass), 0, "{}, {shard_count} shards", isa.name());
    }
}
