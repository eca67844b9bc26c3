package tubthumping.crac;

import java.lang.reflect.Field;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Where the JDK's generators of ordinary random numbers get their seeds from: those made after a
 * restore, and those that each thread has, differ from copy to copy.
 *
 * <p>Not here: a {@code Random} that exists already. Nobody can tell whether it was given its seed,
 * and programs rely on the numbers of one that was.
 *
 * <p>JVM(since 17): the names below; same on 25, but that the algorithms have moved from {@code
 * jdk.random} into {@code java.base}.
 */
final class Seeders {
    /** Classes with a counter that each new generator takes its seed from, and its field. */
    private static final List<List<String>> COUNTERS =
            List.of(
                    List.of("java.util.concurrent.ThreadLocalRandom", "seeder"),
                    List.of("java.util.Random", "seedUniquifier"),
                    List.of("java.util.SplittableRandom", "defaultGen"));

    /** More of them, each with {@code defaultGen}. */
    private static final List<String> ALGORITHMS =
            List.of(
                    "L32X64MixRandom",
                    "L64X128MixRandom",
                    "L64X128StarStarRandom",
                    "L64X256MixRandom",
                    "L64X1024MixRandom",
                    "L128X128MixRandom",
                    "L128X256MixRandom",
                    "L128X1024MixRandom",
                    "Xoroshiro128PlusPlus",
                    "Xoshiro256PlusPlus");

    /** Generators that the JDK has one of, made without a seed, and where. */
    private static final List<List<String>> SINGLE =
            List.of(
                    List.of("java.lang.Math$RandomNumberGeneratorHolder", "randomNumberGenerator"),
                    List.of("java.util.Collections", "r"));

    private final List<Field> counters = new ArrayList<>();
    private final List<Field> single = new ArrayList<>();
    private final Field threadSeed;
    private final Field threadProbe;
    private final VirtualThreads virtualThreads = new VirtualThreads();

    Seeders() throws ReflectiveOperationException {
        for (List<String> names : COUNTERS) {
            add(counters, names.get(0), names.get(1));
        }
        for (String algorithm : ALGORITHMS) {
            add(counters, "jdk.random." + algorithm, "defaultGen");
            add(counters, "jdk.internal.random." + algorithm, "defaultGen");
        }
        for (List<String> names : SINGLE) {
            add(single, names.get(0), names.get(1));
        }
        threadSeed = Internals.field(Thread.class, "threadLocalRandomSeed");
        threadProbe = Internals.field(Thread.class, "threadLocalRandomProbe");
    }

    /** Where a release of the JDK has the class and the field. */
    private static void add(List<Field> fields, String type, String name) {
        Class<?> owner = Internals.type(type);
        try {
            if (owner != null) {
                fields.add(Internals.field(owner, name));
            }
        } catch (NoSuchFieldException e) {
            // Not every release keeps a counter for each.
        }
    }

    void reseed(FreshSeed fresh) throws Exception {
        // Which classes are in use is only known now: threads have gone on until the image.
        for (Field field : counters) {
            if (Internals.isInUse(field) && field.get(null) instanceof AtomicLong counter) {
                // Odd, which Random's has to be: it is multiplied.
                counter.set(fresh.number() | 1);
            }
        }
        for (Field field : single) {
            if (Internals.isInUse(field) && field.get(null) instanceof Random random) {
                random.setSeed(fresh.number());
            }
        }
        for (Thread thread : platformThreads()) {
            reseed(thread, fresh);
        }
        for (Thread thread : virtualThreads.all()) {
            reseed(thread, fresh);
        }
    }

    private void reseed(Thread thread, FreshSeed fresh) throws IllegalAccessException {
        // Zero in a thread that has not drawn yet; it takes its seed from the counter.
        if (threadProbe.getInt(thread) != 0) {
            threadSeed.setLong(thread, fresh.number());
        }
    }

    private static Thread[] platformThreads() {
        ThreadGroup root = Thread.currentThread().getThreadGroup();
        while (root.getParent() != null) {
            root = root.getParent();
        }
        Thread[] threads = new Thread[root.activeCount() + 64];
        int count = root.enumerate(threads, true);
        return Arrays.copyOf(threads, count);
    }
}
