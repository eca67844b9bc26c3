package tubthumping.crac;

import java.lang.ref.ReferenceQueue;
import java.lang.ref.WeakReference;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
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

    private final Map<Registration, Registration> registrations = new LinkedHashMap<>();
    private final ReferenceQueue<Resource> collected = new ReferenceQueue<>();

    private GlobalContext() {}

    @Override
    public void register(Resource resource) {
        Objects.requireNonNull(resource, "resource");
        synchronized (registrations) {
            forgetCollected();
            Registration registration = new Registration(resource, collected);
            // Out first: the order of a LinkedHashMap is that of the first insertion.
            registrations.remove(registration);
            registrations.put(registration, registration);
        }
    }

    /** The living resources in order of registration, held strongly by the result. */
    List<Resource> snapshot() {
        synchronized (registrations) {
            forgetCollected();
            List<Resource> living = new ArrayList<>(registrations.size());
            for (Registration registration : registrations.keySet()) {
                Resource resource = registration.get();
                if (resource != null) {
                    living.add(resource);
                }
            }
            return living;
        }
    }

    private void forgetCollected() {
        for (Object dead = collected.poll(); dead != null; dead = collected.poll()) {
            registrations.remove(dead);
        }
    }

    @Override
    public void beforeCheckpoint(Context<? extends Resource> context) {
        throw new UnsupportedOperationException("the global context is told by checkpoints only");
    }

    @Override
    public void afterRestore(Context<? extends Resource> context) {
        throw new UnsupportedOperationException("the global context is told by checkpoints only");
    }

    private static final class Registration extends WeakReference<Resource> {
        private final int hash;

        Registration(Resource resource, ReferenceQueue<Resource> queue) {
            super(resource, queue);
            hash = System.identityHashCode(resource);
        }

        @Override
        public int hashCode() {
            return hash;
        }

        @Override
        public boolean equals(Object other) {
            if (this == other) {
                return true;
            }
            Resource mine = get();
            return mine != null && other instanceof Registration o && o.get() == mine;
        }
    }
}
