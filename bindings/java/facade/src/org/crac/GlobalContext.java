package org.crac;

import java.lang.ref.WeakReference;
import java.util.Objects;
import tubthumping.crac.WeakIdentityMap;

/** Passes resources on to the global context of {@code jdk.crac}, as weakly as that holds them. */
final class GlobalContext extends Context<Resource> {
    static final GlobalContext INSTANCE = new GlobalContext();

    /** A resource registered again has the later place, so that it needs the same adapter. */
    private final WeakIdentityMap<Resource, Adapter> adapters = new WeakIdentityMap<>();

    private GlobalContext() {}

    @Override
    public void register(Resource resource) {
        Objects.requireNonNull(resource, "resource");
        Adapter adapter;
        synchronized (adapters) {
            adapter = adapters.get(resource);
            if (adapter == null) {
                adapter = new Adapter(resource);
                adapters.put(resource, adapter);
            }
        }
        jdk.crac.Core.getGlobalContext().register(adapter);
    }

    @Override
    public void beforeCheckpoint(Context<? extends Resource> context) {
        throw new UnsupportedOperationException("the global context is told by checkpoints only");
    }

    @Override
    public void afterRestore(Context<? extends Resource> context) {
        throw new UnsupportedOperationException("the global context is told by checkpoints only");
    }

    static <T extends Exception> T suppressedIn(Exception reasons, T exception) {
        for (Throwable reason : reasons.getSuppressed()) {
            exception.addSuppressed(reason);
        }
        return exception;
    }

    private static final class Adapter implements jdk.crac.Resource {
        private final WeakReference<Resource> resource;

        /** Between the two calls, which both come or none. */
        private Resource told;

        Adapter(Resource resource) {
            this.resource = new WeakReference<>(resource);
        }

        @Override
        public void beforeCheckpoint(jdk.crac.Context<? extends jdk.crac.Resource> context)
                throws Exception {
            told = resource.get();
            if (told != null) {
                told.beforeCheckpoint(INSTANCE);
            }
        }

        @Override
        public void afterRestore(jdk.crac.Context<? extends jdk.crac.Resource> context)
                throws Exception {
            Resource mine = told;
            told = null;
            if (mine != null) {
                mine.afterRestore(INSTANCE);
            }
        }

        @Override
        public String toString() {
            Resource mine = resource.get();
            return mine == null ? "collected" : mine.toString();
        }
    }
}
