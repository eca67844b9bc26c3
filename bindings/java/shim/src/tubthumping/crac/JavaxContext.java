package tubthumping.crac;

import java.lang.ref.WeakReference;
import java.util.Objects;
import javax.crac.Context;
import javax.crac.Resource;

/**
 * The global context for resources of {@code javax.crac}: each is registered with the one of {@code
 * jdk.crac} through an adapter, which lives as long as its resource and does not keep it alive.
 */
public final class JavaxContext extends Context<Resource> {
    /** The only one. */
    public static final JavaxContext INSTANCE = new JavaxContext();

    private final WeakIdentityMap<Resource, Adapter> adapters = new WeakIdentityMap<>();

    private JavaxContext() {}

    @Override
    public void register(Resource resource) {
        Objects.requireNonNull(resource, "resource");
        Adapter adapter;
        // Two that register one resource at once must not make two of it.
        synchronized (adapters) {
            adapter = adapters.get(resource);
            if (adapter == null) {
                adapter = new Adapter(resource);
                adapters.put(resource, adapter);
            }
        }
        // Outside, where it may wait for the end of a checkpoint.
        GlobalContext.INSTANCE.register(adapter);
    }

    @Override
    public void beforeCheckpoint(Context<? extends Resource> context) {
        throw new UnsupportedOperationException("the global context is told by checkpoints only");
    }

    @Override
    public void afterRestore(Context<? extends Resource> context) {
        throw new UnsupportedOperationException("the global context is told by checkpoints only");
    }

    /**
     * An exception with the reasons of another.
     *
     * @param <T> the type of the exception
     * @param reasons where they are
     * @param exception where they go
     * @return {@code exception}
     */
    public static <T extends Exception> T suppressedIn(Exception reasons, T exception) {
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
            return mine == null ? "collected" : Failures.describe(mine);
        }
    }
}
