package tubthumping.crac;

import com.sun.management.HotSpotDiagnosticMXBean;
import java.lang.management.ManagementFactory;
import java.lang.ref.SoftReference;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/**
 * Makes the Java heap small for the image: the kernel gets back what is free in it, which is zeros
 * from then on, and zeros are left out of an image. The heap keeps its size, and the JVM all its settings.
 *
 * <p>The native half does so for most collectors, at the end of a collection. Which memory of its heap
 * ZGC holds in reserve nobody is told, so that arrays of zeros are put there, and dropped.
 */
final class Heap {
    private static final List<String> KNOWN = List.of("G1", "Serial", "Parallel", "Shenandoah");

    /** Collections between which the arrays are made and dropped: ZGC frees what it has moved with the next. */
    private static final int COLLECTIONS_OF_Z = 2;

    /**
     * JVM(since 17): the largest object that ZGC puts into a small page, which it takes from its reserve before
     * it takes any from the kernel; for larger ones it does the reverse.
     */
    private static final int FILLER_BYTES = 256 << 10;

    /** JVM: of an array of bytes, whatever the class pointers. */
    private static final int HEADER_BYTES = 16;

    /** For what the application allocates meanwhile. */
    private static final long MARGIN_BYTES = 8 << 20;

    /** Bounds the time that a very large heap takes. */
    private static final long FILL_NANOS = 10_000_000_000L;

    /** What HotSpot does at the first {@code OutOfMemoryError}, whoever gets it. */
    private static final List<String> ENDS =
            List.of("ExitOnOutOfMemoryError", "CrashOnOutOfMemoryError", "HeapDumpOnOutOfMemoryError");

    private final HotSpotDiagnosticMXBean hotspot =
            ManagementFactory.getPlatformMXBean(HotSpotDiagnosticMXBean.class);

    private String option(String flag) {
        try {
            return hotspot == null ? "" : hotspot.getVMOption(flag).getValue();
        } catch (IllegalArgumentException e) {
            // Not built into this JVM.
            return "";
        }
    }

    private boolean isSet(String flag) {
        return option(flag).equals("true");
    }

    void shrink() {
        for (String collector : KNOWN) {
            if (isSet("Use" + collector + "GC")) {
                Agent.collect(collector.getBytes(StandardCharsets.UTF_8));
                return;
            }
        }
        for (int i = 0; i < COLLECTIONS_OF_Z; i++) {
            System.gc();
        }
        if (isSet("UseZGC") && ENDS.stream().noneMatch(this::isSet) && option("OnOutOfMemoryError").isEmpty()) {
            fillWithZeros();
            System.gc();
        }
    }

    /**
     * Fills what the heap holds and does not use: never more, so that it does not grow. Softly
     * reachable, since the application goes on allocating: what it needs it gets.
     */
    private static void fillWithZeros() {
        List<SoftReference<byte[]>> fillers = new ArrayList<>();
        long free = Runtime.getRuntime().freeMemory() - MARGIN_BYTES;
        long start = System.nanoTime();
        while (free >= FILLER_BYTES && System.nanoTime() - start < FILL_NANOS) {
            try {
                fillers.add(new SoftReference<>(new byte[FILLER_BYTES - HEADER_BYTES]));
            } catch (OutOfMemoryError e) {
                // The application needs it all.
                return;
            }
            free -= FILLER_BYTES;
        }
    }
}
