package javax.crac;

/**
 * Something that has to know when the process is frozen into an image, and when it goes on: {@link
 * jdk.crac.Resource} under the name that it had at first.
 */
public interface Resource {
    /**
     * Called before an image is taken.
     *
     * @param context the context with which this resource is registered
     * @throws Exception to refuse the checkpoint; every other resource is told all the same
     */
    void beforeCheckpoint(Context<? extends Resource> context) throws Exception;

    /**
     * Called when the process goes on.
     *
     * @param context the context with which this resource is registered
     * @throws Exception what went wrong; every other resource is told all the same
     */
    void afterRestore(Context<? extends Resource> context) throws Exception;
}
