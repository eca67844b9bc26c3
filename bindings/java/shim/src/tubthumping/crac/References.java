package tubthumping.crac;

import java.lang.ref.Cleaner;
import java.lang.reflect.Method;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/**
 * Waits until what became unreachable has been closed: a socket that was dropped without being
 * closed holds a descriptor until its cleaner has run.
 */
final class References {
    /** Enough for any cleaner that does what a cleaner should; a stuck one must not stop us. */
    private static final long PATIENCE_MS = 1_000;

    private final Object langRefAccess;
    private final Method waitForReferenceProcessing;
    private final Cleaner jdkCleaner;

    /**
     * JVM(since 17): {@code JavaLangRefAccess.waitForReferenceProcessing} and {@code
     * CleanerFactory.cleaner}; same names on 25.
     */
    References() throws ReflectiveOperationException {
        Module base = Object.class.getModule();
        Internals.open(base, "jdk.internal.access");
        Internals.open(base, "jdk.internal.ref");
        Class<?> secrets = Class.forName("jdk.internal.access.SharedSecrets");
        langRefAccess = secrets.getMethod("getJavaLangRefAccess").invoke(null);
        Class<?> access = Class.forName("jdk.internal.access.JavaLangRefAccess");
        waitForReferenceProcessing = access.getMethod("waitForReferenceProcessing");
        Class<?> factory = Class.forName("jdk.internal.ref.CleanerFactory");
        jdkCleaner = (Cleaner) factory.getMethod("cleaner").invoke(null);
    }

    /** Collects garbage and has the JDK's cleaner deal with what was found. */
    void drain() throws ReflectiveOperationException, InterruptedException {
        CountDownLatch reached = new CountDownLatch(1);
        registerSentinel(reached);
        System.gc();
        long deadline = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(PATIENCE_MS);
        while ((boolean) waitForReferenceProcessing.invoke(langRefAccess)) {
            if (System.nanoTime() > deadline) {
                return;
            }
        }
        // Cleaning actions run in the order in which they were enqueued, more or less: where the
        // sentinel's has run, those found by the same collection have been dealt with or are next.
        reached.await(PATIENCE_MS, TimeUnit.MILLISECONDS);
    }

    /** In a method of its own, so that no frame keeps the sentinel alive. */
    private void registerSentinel(CountDownLatch reached) {
        jdkCleaner.register(new Object(), reached::countDown);
    }
}
