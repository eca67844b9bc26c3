package jdk.crac.impl;

/** A selector for which channels are registered that the application left open. */
public class BusySelectorException extends CheckpointOpenResourceException {
    private static final long serialVersionUID = 1L;

    /**
     * With the selector and its channels.
     *
     * @param details both, in words
     */
    public BusySelectorException(String details) {
        super(details);
    }
}
