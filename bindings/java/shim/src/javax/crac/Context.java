package javax.crac;

/**
 * An ordered set of resources, itself a resource so that contexts can be nested.
 *
 * @param <R> what can be registered
 */
public abstract class Context<R extends Resource> implements Resource {
    /** For subclasses. */
    protected Context() {}

    @Override
    public abstract void beforeCheckpoint(Context<? extends Resource> context)
            throws CheckpointException;

    @Override
    public abstract void afterRestore(Context<? extends Resource> context) throws RestoreException;

    /**
     * Registers a resource, as {@link jdk.crac.Context#register} does.
     *
     * @param resource held weakly; registered twice it has the later place
     * @throws NullPointerException if it is null
     */
    public abstract void register(R resource);
}
