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

    private final WeakIdentityMap<Resource, Boolean> registrations = new WeakIdentityMap<>();

    private GlobalContext() {}

    @Override
    public void register(Resource resource) {
        registrations.put(Objects.requireNonNull(resource, "resource"), true);
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
