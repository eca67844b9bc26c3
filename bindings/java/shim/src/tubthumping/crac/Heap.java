package tubthumping.crac;

import com.sun.management.HotSpotDiagnosticMXBean;
import java.lang.management.ManagementFactory;
import java.lang.management.MemoryPoolMXBean;
import java.lang.management.MemoryUsage;
import java.util.ArrayList;
import java.util.List;

/**
 * Makes the Java heap small for the image, and gives it its freedom back afterwards.
 *
 * <p>G1 and Shenandoah give memory back to the kernel when the ratio flags, which are manageable,
 * ask for it. Serial and Parallel keep it; there the dead bytes in free space are overwritten with
 * zeros, which the engine leaves out of the image.
 */
final class Heap {
    /** Big, since each array's header is a page of the image that is not zeros. */
    private static final int FILLER_BYTES = 4 << 20;

    private static final int SMALLEST_FILLER_BYTES = 64 << 10;

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
            // The lower bound first: each is checked against the other.
            hotspot.setVMOption("MinHeapFreeRatio", "5");
            hotspot.setVMOption("MaxHeapFreeRatio", "10");
        }
        System.gc();
        System.gc();
        if (keeps) {
            for (MemoryPoolMXBean pool : ManagementFactory.getMemoryPoolMXBeans()) {
                if (pool.getName().endsWith("Eden Space")) {
                    fillWithZeros(pool);
                }
            }
            // Empties the space again: a copy that starts with a full one collects at once.
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

    /** Fills what is committed of a pool with arrays, and drops them. */
    private static void fillWithZeros(MemoryPoolMXBean pool) {
        List<byte[]> fillers = new ArrayList<>();
        int size = FILLER_BYTES;
        while (size >= SMALLEST_FILLER_BYTES) {
            MemoryUsage usage = pool.getUsage();
            // Half a filler stays free, since other threads allocate as well and the collection
            // that a full pool brings about would undo the work.
            if (usage.getCommitted() - usage.getUsed() < size + size / 2) {
                size /= 2;
            } else {
                fillers.add(new byte[size]);
            }
        }
    }
}
