package javax.crac;

/** The process goes on from an image, but resources failed to. Each reason is a suppressed exception. */
public class RestoreException extends Exception {
    private static final long serialVersionUID = 1L;

    /** Without a message: the reasons say it all. */
    public RestoreException() {}

    /**
     * With a message.
     *
     * @param message for people; facades drop it
     */
    public RestoreException(String message) {
        super(message);
    }
}
