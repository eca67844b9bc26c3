package tubthumping.crac;

import java.lang.management.ManagementFactory;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * What a CRaC JDK stores with an image about the JVM in it, so that whoever has several images can choose one.
 *
 * <p>In: the JVM. Out: numbers as text, by the names and in the units that a CRaC JDK has for them.
 *
 * <p>Not here: those that are counters of HotSpot's, and the time of the processors, which the native half adds: to
 * have them in Java takes classes that would be in the image.
 */
final class Metrics {
    /** When the original was started: looked at before its first image, as a copy counts from its restore. */
    private static final long BOOT_MILLIS =
            System.currentTimeMillis() - ManagementFactory.getRuntimeMXBean().getUptime();

    private Metrics() {}

    static Map<String, String> read(int resources) {
        Map<String, String> all = new LinkedHashMap<>();
        Management.RestoreTime restore = Management.RestoreTime.last;
        Runtime runtime = Runtime.getRuntime();
        add(all, "jdk.crac.globalContext.size", resources);
        add(all, "vm.bootTime", BOOT_MILLIS);
        // What the bean says in a copy, too: both are read at once.
        long uptime =
                restore == null
                        ? ManagementFactory.getRuntimeMXBean().getUptime()
                        : restore.uptimeMillis();
        add(all, "vm.uptime", uptime);
        add(all, "vm.uptimeSinceBoot", restore == null ? uptime : System.currentTimeMillis() - BOOT_MILLIS);
        add(all, "vm.uptimeSinceRestore", restore == null ? -1 : uptime);
        add(all, "vm.availableProcessors", runtime.availableProcessors());
        add(all, "vm.freeMemory", runtime.freeMemory());
        add(all, "vm.totalMemory", runtime.totalMemory());
        add(all, "vm.maxMemory", runtime.maxMemory());
        return all;
    }

    private static void add(Map<String, String> all, String name, long value) {
        all.put(name, Long.toString(value));
    }
}
