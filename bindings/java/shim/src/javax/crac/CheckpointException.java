package javax.crac;

/** There is no image. Each reason is a suppressed exception, flat. */
public class CheckpointException extends Exception {
    private static final long serialVersionUID = 1L;

    /** Without a message: the reasons say it all. */
    public CheckpointException() {}

    /**
     * With a message.
     *
     * @param message for people; facades drop it
     */
    public CheckpointException(String message) {
        super(message);
    }
}
