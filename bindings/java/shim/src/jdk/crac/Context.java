package jdk.crac;

import tubthumping.crac.GlobalContext;

/**
 * An ordered set of resources, itself a resource so that contexts can be nested.
 *
 * @param <R> what can be registered
 */
public abstract class Context<R extends Resource> implements Resource {
    /** For subclasses. */
    protected Context() {}

    /**
     * The context that is told of every checkpoint.
     *
     * @return the same object each time
     */
    public static Context<Resource> getGlobalContext() {
        return GlobalContext.INSTANCE;
    }

    @Override
    public abstract void beforeCheckpoint(Context<? extends Resource> context)
            throws CheckpointException;

    @Override
    public abstract void afterRestore(Context<? extends Resource> context) throws RestoreException;

    /**
     * Registers a resource. It is told of checkpoints in the reverse order of registration, and
     * that the process goes on in the order of registration.
     *
     * @param resource held weakly; registered twice it has the later place
     * @throws NullPointerException if it is null
     */
    public abstract void register(R resource);
}
