package org.crac;

/** There is no image: the reasons are suppressed exceptions. */
public class CheckpointException extends Exception {
    private static final long serialVersionUID = 1L;

    /** Without a text. */
    public CheckpointException() {}

    /**
     * With a text.
     *
     * @param message the text
     */
    public CheckpointException(String message) {
        super(message);
    }
}
