package tubthumping.crac;

import java.util.List;
import java.util.Objects;
import jdk.crac.Context;
import jdk.crac.Resource;

/**
 * The context that is told of every checkpoint.
 *
 * <p>In: resources. Out: a snapshot of those that are alive, in order of registration.
 *
 * <p>Invariant: resources are compared by identity and held weakly. The resources that the facade
 * org.crac registers are proxies whose {@code hashCode} and {@code equals} throw once their target
 * has been collected, and which would keep their target's place for ever if held strongly.
 *
 * <p>Not here: telling them (see {@link Round}).
 */
public final class GlobalContext extends Context<Resource> {
    /** The only one. */
    public static final GlobalContext INSTANCE = new GlobalContext();

    /**
     * Whether a thread that registers during a checkpoint waits for its end, as it did in the CRaC
     * JDKs of 17 and 21.
     */
    private static final boolean BLOCKING =
            "BlockingOrderedContext".equals(System.getProperty("jdk.crac.globalContext.impl"));

    private final WeakIdentityMap<Resource, Boolean> registrations = new WeakIdentityMap<>();

    /** The thread that tells of a checkpoint, from the snapshot until after-hooks may run. */
    private Thread telling;

    private GlobalContext() {}

    @Override
    public void register(Resource resource) {
        Objects.requireNonNull(resource, "resource");
        if (BLOCKING) {
            awaitEnd(resource);
        }
        registrations.put(resource, true);
    }

    private synchronized void awaitEnd(Resource resource) {
        // The telling thread itself would wait for ever.
        while (telling != null && telling != Thread.currentThread()) {
            String name = Failures.describe(resource);
            if (Thread.currentThread().isInterrupted()) {
                throw new RuntimeException(
                        "Interrupted thread tried to block in registration of " + name + " in " + this);
            }
            try {
                wait();
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                throw new RuntimeException("Interrupted while trying to register " + name, e);
            }
        }
    }

    /** Says which thread tells of a checkpoint now; {@code null} for none. */
    synchronized void telling(Thread thread) {
        telling = thread;
        notifyAll();
    }

    /** The living resources in order of registration, held strongly by the result. */
    List<Resource> snapshot() {
        return registrations.keys();
    }

    @Override
    public void beforeCheckpoint(Context<? extends Resource> context) {
        throw new UnsupportedOperationException("the global context is told by checkpoints only");
    }

    @Override
    public void afterRestore(Context<? extends Resource> context) {
        throw new UnsupportedOperationException("the global context is told by checkpoints only");
    }
}
