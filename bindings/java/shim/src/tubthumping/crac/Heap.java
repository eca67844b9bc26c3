package tubthumping.crac;

import com.sun.management.HotSpotDiagnosticMXBean;
import java.lang.management.ManagementFactory;
import java.lang.management.MemoryPoolMXBean;
import java.lang.management.MemoryUsage;
import java.lang.ref.SoftReference;
import java.util.ArrayList;
import java.util.List;

/**
 * Makes the Java heap small for the image, and gives it its freedom back afterwards.
 *
 * <p>Dead bytes in free space are overwritten with zeros, which the engine leaves out of the image,
 * by arrays that are dropped again. G1 and Shenandoah also give memory back to the kernel, later and
 * down to {@code -Xms}, when the ratio flags, which are manageable, ask for it.
 */
final class Heap {
    /** Big, since each array's header is a page of the image that is not zeros. */
    private static final int FILLER_BYTES = 4 << 20;

    private static final int SMALLEST_FILLER_BYTES = 64 << 10;

    /** For what other threads allocate meanwhile, and for headers. */
    private static final int SLACK_BYTES = 1 << 20;

    /** Of the arrays that fill regions: whole regions each, whatever size those have. */
    private static final int LARGEST_REGIONS_BYTES = 64 << 20;

    private static final int REGION_BYTES = 4 << 20;

    /** A heap that was never touched costs a fault for each of its pages. */
    private static final long FILL_NANOS = 10_000_000_000L;

    /** An array's header at most, so that it ends where its last region does. */
    private static final int HEADER_BYTES = 32;

    private final HotSpotDiagnosticMXBean hotspot =
            ManagementFactory.getPlatformMXBean(HotSpotDiagnosticMXBean.class);
    private final boolean gives = isSet("UseG1GC") || isSet("UseShenandoahGC");
    private final boolean keeps = isSet("UseSerialGC") || isSet("UseParallelGC");
    private String minFree;
    private String maxFree;

    private boolean isSet(String flag) {
        try {
            return hotspot != null && hotspot.getVMOption(flag).getValue().equals("true");
        } catch (IllegalArgumentException e) {
            // Not built into this JVM.
            return false;
        }
    }

    void shrink() {
        if (gives) {
            minFree = hotspot.getVMOption("MinHeapFreeRatio").getValue();
            maxFree = hotspot.getVMOption("MaxHeapFreeRatio").getValue();
            // Not yet: what is to be given back is filled with zeros first, since JVM(since 16) G1 does
            // so in the background, and may not have come to it when the image is taken.
            hotspot.setVMOption("MaxHeapFreeRatio", "100");
        }
        System.gc();
        if (!keeps) {
            fillRegions();
        }
        if (gives) {
            // The lower bound first: each is checked against the other.
            hotspot.setVMOption("MinHeapFreeRatio", "5");
            hotspot.setVMOption("MaxHeapFreeRatio", "10");
        }
        System.gc();
        System.gc();
        if (keeps) {
            fillWithZeros();
            // Empties the spaces again: a copy that starts with full ones collects at once.
            System.gc();
        }
    }

    void restore() {
        if (maxFree != null) {
            hotspot.setVMOption("MaxHeapFreeRatio", maxFree);
            hotspot.setVMOption("MinHeapFreeRatio", minFree);
            maxFree = null;
            minFree = null;
        }
    }

    /**
     * The same where the heap consists of regions: an array of half a region or more has regions of
     * its own, and the collectors put it where there is room.
     *
     * <p>Softly reachable, since the application goes on allocating: what it needs it gets. So what is
     * free is counted once, or the loop would fill what a collection has just cleared.
     */
    private void fillRegions() {
        Runtime runtime = Runtime.getRuntime();
        long region = regionBytes();
        // For what others allocate meanwhile.
        long free = runtime.freeMemory() - 2 * region - SLACK_BYTES;
        List<SoftReference<byte[]>> fillers = new ArrayList<>();
        long size = LARGEST_REGIONS_BYTES;
        long start = System.nanoTime();
        while (size >= region && System.nanoTime() - start < FILL_NANOS) {
            // A quarter at most: what is free need not be in one piece, and to look for a piece the
            // JVM would clear all that was filled.
            if (size > free / 4) {
                size /= 2;
                continue;
            }
            try {
                fillers.add(new SoftReference<>(new byte[(int) size - HEADER_BYTES]));
            } catch (OutOfMemoryError e) {
                // The application needs it all.
                return;
            }
            free -= size;
        }
    }

    private long regionBytes() {
        return isSet("UseG1GC")
                ? Long.parseLong(hotspot.getVMOption("G1HeapRegionSize").getValue())
                : REGION_BYTES;
    }

    /** Fills what is committed and free with arrays, and drops them. */
    private static void fillWithZeros() {
        MemoryPoolMXBean eden = null;
        MemoryPoolMXBean old = null;
        long youngBytes = 0;
        for (MemoryPoolMXBean pool : ManagementFactory.getMemoryPoolMXBeans()) {
            String name = pool.getName();
            if (name.endsWith("Eden Space")) {
                eden = pool;
                youngBytes += pool.getUsage().getCommitted();
            } else if (name.endsWith("Survivor Space")) {
                youngBytes += 2 * pool.getUsage().getCommitted();
            } else if (name.equals("Tenured Gen") || name.equals("PS Old Gen")) {
                old = pool;
            }
        }
        List<byte[]> fillers = new ArrayList<>();
        if (old != null) {
            fillOld(old, youngBytes, fillers);
        }
        if (eden != null) {
            fillEden(eden, fillers);
        }
    }

    /**
     * JVM(since 17): Serial and Parallel put an array that the young generation could never hold
     * into the old one at once. What is left is smaller than the young generation.
     */
    private static void fillOld(MemoryPoolMXBean old, long youngBytes, List<byte[]> fillers) {
        long smallest = youngBytes + SLACK_BYTES;
        long free = free(old) - SLACK_BYTES;
        // As few as possible, so that together they cover all of it.
        long count = Math.max(free / smallest, free / Integer.MAX_VALUE + 1);
        long size = free / count;
        while (size >= smallest && free(old) >= size + SLACK_BYTES) {
            fillers.add(new byte[(int) (size - SLACK_BYTES / 16)]);
        }
    }

    private static void fillEden(MemoryPoolMXBean eden, List<byte[]> fillers) {
        int size = FILLER_BYTES;
        while (size >= SMALLEST_FILLER_BYTES) {
            // Half a filler stays free, since other threads allocate as well and the collection
            // that a full space brings about would undo the work.
            if (free(eden) < size + size / 2) {
                size /= 2;
            } else {
                fillers.add(new byte[size]);
            }
        }
    }

    private static long free(MemoryPoolMXBean pool) {
        MemoryUsage usage = pool.getUsage();
        return usage.getCommitted() - usage.getUsed();
    }
}
